"""From runs to figures: medians over repeats and their spread, ratios to both floors. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from infra.lab.bench.figures import Spreads, spreads
from infra.lab.bench.scenarios import BARE, BARE_NODE, Run

Summary = dict[str, dict[str, dict[str, float]]]
"""scenario → system → value's name → median."""
Ranges = dict[str, dict[str, Spreads]]
"""scenario → system → value's name → median, least and most."""

FLOORS = (BARE, BARE_NODE)
"""Of what is answered without a model, and of what goes over a node."""
_RATIOS = ("per_second", "p50_ms", "p99_ms", "cpu_us_per_job")


def ranges(runs: Sequence[Run]) -> Ranges:
    """Of every value that was measured."""
    found: defaultdict[str, dict[str, Spreads]] = defaultdict(dict)
    for scenario, system in dict.fromkeys((run.scenario, run.system) for run in runs):
        found[scenario][system] = spreads([run.values for run in runs if (run.scenario, run.system) == (scenario, system)])
    return found


def summarise(runs: Sequence[Run]) -> Summary:
    """Medians, and `<value>_to_<floor>` where that floor ran the same scenario."""
    summary: Summary = {
        scenario: {system: {name: one.median for name, one in values.items()} for system, values in systems.items()}
        for scenario, systems in ranges(runs).items()
    }
    for systems in summary.values():
        _add_ratios(systems)
    return summary


def _add_ratios(systems: dict[str, dict[str, float]]) -> None:
    for floor in FLOORS:
        base = systems.get(floor, {})
        for system, found in systems.items():
            if system not in FLOORS:
                found |= {f"{name}_to_{floor}": found[name] / base[name] for name in _RATIOS if name in found and base.get(name)}


def value(summary: Mapping[str, Mapping[str, Mapping[str, float]]], path: str) -> float | None:
    """`scenario/system/value`, or None when it was not measured."""
    scenario, system, name = path.split("/")
    return summary.get(scenario, {}).get(system, {}).get(name)
