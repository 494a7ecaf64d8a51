"""Of `python -m infra.lab.bench`: tables for people, JSON for later runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from infra.lab.bench.figures import Verdict, cell
from infra.lab.bench.outcome import envelope, heading, verdict_lines
from infra.lab.bench.scenarios import Run
from infra.lab.bench.summary import Ranges, Summary, ranges

SIMULATED = "every model of this bench is simulated"
_SHOWN = (
    "per_second",
    "p50_ms",
    "p99_ms",
    "first_token_p50_ms",
    "cpu_us_per_job",
    "cpu_us_per_chunk",
    "per_second_to_bare",
    "p50_ms_to_bare",
    "per_second_to_bare_node",
    "p50_ms_to_bare_node",
)
_HEADINGS = ("per s", "p50 ms", "p99 ms", "first ms", "us/job", "us/chunk", "rate/bare", "p50/bare", "rate/node", "p50/node")


def document(
    facts: Mapping[str, Any], options: Mapping[str, Any], runs: Sequence[Run], summary: Summary, verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Everything of one bench, ready for JSON."""
    return {
        **envelope("bench", SIMULATED, facts, options),
        "summary": summary,
        "spread": {
            scenario: {system: {name: asdict(one) for name, one in values.items()} for system, values in systems.items()}
            for scenario, systems in ranges(runs).items()
        },
        "budgets": [asdict(verdict) for verdict in verdicts],
        "runs": [asdict(run) for run in runs],
    }


def tables(facts: Mapping[str, Any], runs: Sequence[Run], summary: Summary, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Lines for the terminal."""
    yield from heading(facts)
    found = ranges(runs)
    repeats = max((run.repeat + 1 for run in runs), default=0)
    yield f"medians of {repeats} run(s){', below them the least and the most' if repeats > 1 else ''}; the model is simulated"
    yield "each system while the others are stopped; /bare: to the bare pass-through, /node: to the one that asks the node for each answer"
    yield ""
    yield f"{'scenario':<13}{'system':<18}" + "".join(f"{heading:>12}" for heading in _HEADINGS)
    for scenario, systems in summary.items():
        for system, values in systems.items():
            yield f"{scenario:<13}{system:<18}" + "".join(f"{cell(values.get(name)):>12}" for name in _SHOWN)
            if repeats > 1:
                yield f"{'':<31}" + "".join(f"{_range(found, scenario, system, name):>12}" for name in _SHOWN)
    yield ""
    yield from _by_service(summary)
    yield ""
    yield from verdict_lines(verdicts)


def _range(found: Ranges, scenario: str, system: str, name: str) -> str:
    one = found[scenario][system].get(name)
    return "" if one is None else f"{cell(one.least)}-{cell(one.most)}"


def _by_service(summary: Summary) -> Iterator[str]:
    """CPU a job (or a chunk) and memory of each process."""
    for scenario, systems in summary.items():
        for system, values in systems.items():
            shown = {name.partition(".")[2]: figure for name, figure in values.items() if name.startswith("cpu_us_per_")}
            memory = {name.partition(".")[2]: figure for name, figure in values.items() if name.startswith("resident_mb.")}
            parts = [
                f"{name} {figure:.0f} us" + (f" {memory[name]:.0f} MB" if name in memory else "") for name, figure in shown.items() if name
            ]
            yield f"{scenario:<13}{system:<18}{', '.join(parts)}"
