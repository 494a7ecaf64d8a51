"""Figures of repeated runs: percentiles, medians and their spread, and whether a budget was kept. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

Figures = Mapping[str, float]
"""What one run measured; units are in the names."""
MS, MIB = 1_000.0, 2**20


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie, interpolated; the only one when there is one, 0 of none."""
    if len(values) < 2:
        return values[0] if values else 0.0
    cuts = quantiles(values, n=1_000, method="inclusive")
    return cuts[min(len(cuts) - 1, max(0, round(share * 1_000) - 1))]


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all runs."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))


Spreads = Mapping[str, Spread]


def by_figure(runs: Sequence[Figures]) -> dict[str, list[float]]:
    """In the order in which they first appear; a run that lacks one does not count for it."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: [run[name] for run in runs if name in run] for name in names}


def median_of(name: str) -> Callable[[Spreads], float | None]:
    """For budgets of times and rates."""
    return lambda found: found[name].median if name in found else None


def most_of(name: str) -> Callable[[Spreads], float | None]:
    """For what must hold in every run."""
    return lambda found: found[name].most if name in found else None


@dataclass(frozen=True, slots=True)
class Budget:
    """`at_most` or `at_least`; `measured` finds the figure in what was measured, None when it was not."""

    name: str
    unit: str
    measured: Callable[[Spreads], float | None]
    at_most: float | None = None
    at_least: float | None = None

    def judge(self, measured: Spreads) -> Verdict:
        """Met, missed or not measured."""
        limit = f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"
        found = self.measured(measured)
        if found is None:
            return Verdict(self.name, self.unit, limit, None, None)
        met = (self.at_most is None or found <= self.at_most) and (self.at_least is None or found >= self.at_least)
        return Verdict(self.name, self.unit, limit, found, met)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a budget; `measured` and `met` are None when it was not measured."""

    name: str
    unit: str
    limit: str
    measured: float | None
    met: bool | None

    def __str__(self) -> str:
        word = {None: "not measured", True: "met", False: "MISSED"}[self.met]
        return f"{self.name:<50}{self.limit:>10}{cell(self.measured):>12} {self.unit:<9} {word}"


def cell(figure: float | None) -> str:
    """At most seven characters for what benches measure."""
    if figure is None:
        return "-"
    return f"{figure:.0f}" if abs(figure) >= 99.995 or figure == int(figure) else f"{figure:.2f}"
