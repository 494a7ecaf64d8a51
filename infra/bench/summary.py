"""From runs to figures: medians over repeats, ratios to bare. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median

from infra.bench.scenarios import Run

Summary = dict[str, dict[str, dict[str, float]]]
"""scenario → system → value's name → median."""

BARE = "bare"
_RATIOS = ("per_second", "p50_ms", "p99_ms", "cpu_us_per_job")


def summarise(runs: Iterable[Run]) -> Summary:
    """Medians, and `<value>_to_bare` where the bare system ran the same scenario."""
    values: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run in runs:
        for name, value in run.values.items():
            values[run.scenario][run.system][name].append(value)
    summary: Summary = {
        scenario: {system: {name: median(found) for name, found in names.items()} for system, names in systems.items()}
        for scenario, systems in values.items()
    }
    for systems in summary.values():
        _add_ratios(systems)
    return summary


def _add_ratios(systems: dict[str, dict[str, float]]) -> None:
    base = systems.get(BARE, {})
    for system, found in systems.items():
        if system != BARE:
            found |= {f"{name}_to_bare": found[name] / base[name] for name in _RATIOS if name in found and base.get(name)}


def value(summary: Mapping[str, Mapping[str, Mapping[str, float]]], path: str) -> float | None:
    """`scenario/system/value`, or None when it was not measured."""
    scenario, system, name = path.split("/")
    return summary.get(scenario, {}).get(system, {}).get(name)
