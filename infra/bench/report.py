"""Tables for people, JSON for later runs, and the comparison of two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.bench.budgets import Verdict
from infra.bench.scenarios import Run
from infra.bench.summary import Summary

FORMAT = 1
NOTICEABLE = 0.1
"""Changes below this share are not shown: runs on shared machines differ by as much."""
BUSY = 0.25
"""Runnable processes a core before the start, above which absolute figures are not worth keeping."""
_SHOWN = (
    "per_second",
    "p50_ms",
    "p99_ms",
    "first_token_p50_ms",
    "cpu_us_per_job",
    "cpu_us_per_chunk",
    "per_second_to_bare",
    "p50_ms_to_bare",
)
_HEADINGS = ("per s", "p50 ms", "p99 ms", "first ms", "us/job", "us/chunk", "rate/bare", "p50/bare")


def document(
    facts: Mapping[str, Any], settings: Mapping[str, Any], runs: Sequence[Run], summary: Summary, verdicts: Sequence[Verdict]
) -> Any:
    """Everything of one bench, ready for JSON."""
    return {
        "format": FORMAT,
        "simulated": "every model of this bench is simulated",
        "machine": dict(facts),
        "settings": dict(settings),
        "summary": summary,
        "budgets": [verdict.as_dict() for verdict in verdicts],
        "runs": [asdict(run) for run in runs],
    }


def tables(facts: Mapping[str, Any], summary: Summary, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Lines for the terminal."""
    yield f"{facts['cpu']}, {facts['cores']} cores, load before {facts['load_before']}, python {facts['python']}, commit {facts['commit']}"
    yield "medians; the model is simulated"
    if facts["load_before"] > BUSY * facts["cores"]:
        yield "the machine was busy before the bench began: only ratios to bare mean something, and little"
    yield ""
    yield f"{'scenario':<13}{'system':<18}" + "".join(f"{heading:>10}" for heading in _HEADINGS)
    for scenario, systems in summary.items():
        for system, values in systems.items():
            yield f"{scenario:<13}{system:<18}" + "".join(_cell(values.get(name)) for name in _SHOWN)
    yield ""
    yield from _by_service(summary)
    yield ""
    yield f"{'budget':<36}{'limit':>10}{'measured':>12}  "
    for verdict in verdicts:
        word = {None: "not measured", True: "met", False: "MISSED"}[verdict.met]
        yield f"{verdict.budget.name:<36}{verdict.budget.limit:>10}{_cell(verdict.measured):>12} {verdict.budget.unit:<9} {word}"


def _by_service(summary: Summary) -> Iterator[str]:
    """CPU and memory of each service under the two heavy loads."""
    for scenario in ("rest_64", "queue", "streams"):
        for system, values in summary.get(scenario, {}).items():
            shown = {name.partition(".")[2]: figure for name, figure in values.items() if name.startswith("cpu_us_per_")}
            memory = {name.partition(".")[2]: figure for name, figure in values.items() if name.startswith("resident_mb.")}
            parts = [
                f"{name} {figure:.0f} us" + (f" {memory[name]:.0f} MB" if name in memory else "") for name, figure in shown.items() if name
            ]
            yield f"{scenario:<10}{system:<18}{', '.join(parts)}"


def _cell(figure: float | None) -> str:
    if figure is None:
        return f"{'-':>10}"
    return f"{figure:>10.0f}" if figure >= 100 else f"{figure:>10.2f}"


def comparison(old: Mapping[str, Any], summary: Summary) -> Iterator[str]:
    """What has changed noticeably since an earlier run. Ratios to bare are comparable between machines, the rest is not."""
    if old.get("format") != FORMAT:
        yield f"the earlier file has format {old.get('format')}, not {FORMAT}: not compared"
        return
    yield f"against {old['machine'].get('commit')} on {old['machine'].get('cpu')}, {old['machine'].get('cores')} cores:"
    for scenario, systems in summary.items():
        for system, values in systems.items():
            before = old["summary"].get(scenario, {}).get(system, {})
            for name in _SHOWN:
                if name in values and before.get(name) and abs(change := values[name] / before[name] - 1) >= NOTICEABLE:
                    yield f"  {scenario} {system} {name}: {before[name]:.4g} -> {values[name]:.4g} ({change:+.0%})"


def write(path: Path, content: Any) -> None:
    """As JSON, for people too; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
