"""A cascade's accuracy and cost over its threshold, out of labelled answers, and the drawing of it. Pure but for that.

An item is passed on to the strong model where its score is below the threshold; then it costs both. Accuracy and cost are means an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict, Field

from shared.contracts.base import Contract, Cost

NEVER = 1.0 + 1e-9
"""A threshold that no score reaches."""


class LabelledAnswer(Contract):
    """One question: what the check said of the weak model's answer, whether it and the strong one's were right, what each cost."""

    model_config = ConfigDict(extra="ignore", strict=True)

    score: float = Field(ge=0, le=1)
    weak_right: bool
    strong_right: bool
    weak_cost: Cost
    strong_cost: Cost


class Point(NamedTuple):
    """`escalated`: share of items that are passed on; `right`: share that is answered right; `cost`: mean of an item."""

    threshold: float
    escalated: float
    right: float
    cost: float


def curve(items: Sequence[LabelledAnswer]) -> list[Point]:
    """A point for each threshold that makes a difference, from nothing passed on to all."""
    ordered = sorted(items, key=lambda item: item.score)
    count, escalated = len(ordered), 0
    right, cost = float(sum(item.weak_right for item in ordered)), sum(item.weak_cost for item in ordered)
    points = []
    for score, same in groupby(ordered, key=lambda item: item.score):
        points.append(Point(score, escalated / count, right / count, cost / count))
        for item in same:
            escalated += 1
            right += item.strong_right - item.weak_right
            cost += item.strong_cost
    return [*points, Point(NEVER, 1.0, right / count, cost / count)]


def at(items: Sequence[LabelledAnswer], threshold: float) -> Point:
    """The point of any threshold."""
    passed = [item.score < threshold for item in items]
    right = sum(item.strong_right if on else item.weak_right for item, on in zip(items, passed, strict=True))
    cost = sum(item.weak_cost + item.strong_cost * on for item, on in zip(items, passed, strict=True))
    return Point(threshold, sum(passed) / len(items), right / len(items), cost / len(items))


def chosen(points: Sequence[Point], wanted: float) -> Point:
    """The cheapest that is right as often as wanted; where none is, the one that is right most often."""
    good = [point for point in points if point.right >= wanted - 1e-12]
    return min(good, key=lambda point: (point.cost, point.escalated)) if good else max(points, key=lambda p: (p.right, -p.cost))


def always_weak(items: Sequence[LabelledAnswer]) -> Point:
    """One call of the weak model, unchecked."""
    return at(items, 0.0)


def always_strong(items: Sequence[LabelledAnswer]) -> Point:
    """One call of the strong model; the weak one is not asked."""
    count = len(items)
    return Point(NEVER, 1.0, sum(item.strong_right for item in items) / count, sum(item.strong_cost for item in items) / count)


def by_chance(items: Sequence[LabelledAnswer], escalated: float) -> Point:
    """As many passed on, drawn by lot: its expectation."""
    weak, strong = always_weak(items), always_strong(items)
    right = (1 - escalated) * weak.right + escalated * strong.right
    return Point(float("nan"), escalated, right, weak.cost + escalated * strong.cost)


def oracle(items: Sequence[LabelledAnswer]) -> Point:
    """A check that is never wrong: exactly the weak model's wrong answers are passed on."""
    return at([item.model_copy(update={"score": float(item.weak_right)}) for item in items], 0.5)


def area_over_chance(items: Sequence[LabelledAnswer]) -> float:
    """Mean of how much more often the cascade is right than chance, over all shares that may be passed on."""
    gains = [(point.escalated, point.right - by_chance(items, point.escalated).right) for point in curve(items)]
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(gains))


def auroc(items: Sequence[LabelledAnswer]) -> float | None:
    """Probability that a right weak answer has a higher score than a wrong one, equal ones half; None where there are not both."""
    rights, wrongs, better = 0, 0, 0.0
    for _, same in groupby(sorted(items, key=lambda item: item.score), key=lambda item: item.score):
        group = [item.weak_right for item in same]
        right, wrong = group.count(True), group.count(False)
        better += right * (wrongs + wrong / 2)
        rights, wrongs = rights + right, wrongs + wrong
    return better / (rights * wrongs) if rights and wrongs else None


def margin(share: float, count: int) -> float:
    """Half of the 95 % interval of a share of so many (normal approximation)."""
    return 1.96 * sqrt(share * (1 - share) / count)


def drawn(file: Path, items: Sequence[LabelledAnswer], best: Point) -> None:
    """The accuracy-cost curve beside chance, always weak, always strong, the check that is never wrong, and the chosen point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=90, layout="constrained")
    axes = figure.subplots()
    lines = {"passed on by chance": [by_chance(items, share) for share in (0.0, 1.0)], "cascade over its threshold": curve(items)}
    for (name, points), look in zip(lines.items(), ("--", "-"), strict=True):
        axes.plot([point.cost for point in points], [100 * point.right for point in points], look, label=name)
    marks = {"always weak": always_weak(items), "always strong": always_strong(items), "perfect check": oracle(items), "chosen": best}
    for name, point in marks.items():
        axes.plot(point.cost, 100 * point.right, "o", label=name)
    axes.set(xlabel="mean cost of a question", ylabel="answered right, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)
