"""What patterns gain over their baselines, out of the comparisons that planners have made (`results`). Pure.

Gain is (better - worse) / all, ties included. Its 95 % interval is that of a difference of paired shares by Agresti and Min (Statistics in
Medicine 24, 2005): half a pair is added to each of the four cells, then the normal approximation. From 20 on it covers at least 92 %, in
the mean 95 %; a gain that is none is taken for one in at most 6.5 % of reports, half of these each way (a test counts it out). Below
`FEWEST`, or where the interval holds 0, there is no evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import sqrt
from statistics import median
from typing import Any

from pydantic import ValidationError

from shared.contracts.result import Result, Status
from shared.derived import comparison_id
from shared.patterns.compare import COMPARE
from shared.patterns.comparison import Comparison

FEWEST = 20
"""Comparisons of a pattern and tenant, below which nothing is claimed."""
_Z = 1.959964


@dataclass(slots=True)
class Gain:
    """The comparisons of one pattern, of one tenant."""

    pattern: str
    tenant: str
    better: int = 0
    equal: int = 0
    worse: int = 0
    judged: int = 0
    place: int = 0
    """Of the judged ones: the judge preferred a place."""
    baselines: set[str] = field(default_factory=set)
    cost_ratios: list[float] = field(default_factory=list)
    seconds_ratios: list[float] = field(default_factory=list)

    def add(self, one: Comparison) -> None:
        setattr(self, one.verdict, getattr(self, one.verdict) + 1)
        self.judged += one.judge != "not asked"
        self.place += one.judge == "prefers a place"
        self.baselines.add(one.baseline)
        self.cost_ratios += [one.cost_ratio] if one.cost_ratio is not None else []
        self.seconds_ratios += [one.seconds_ratio] if one.seconds_ratio is not None else []

    @property
    def count(self) -> int:
        return self.better + self.equal + self.worse

    @property
    def evidence(self) -> str:
        """What may be said of it."""
        low, high = interval(self.better, self.worse, self.count)
        if self.count < FEWEST:
            return f"no evidence: {self.count} of {FEWEST} comparisons"
        if low > 0 or high < 0:
            return "better" if low > 0 else "worse"
        blind = 2 * self.place > self.judged
        return f"no evidence: the judge prefers a place in {self.place} of {self.judged}" if blind else "no evidence: the interval holds 0"

    def as_json(self) -> dict[str, Any]:
        low, high = interval(self.better, self.worse, self.count)
        return {
            "pattern": self.pattern,
            "tenant": self.tenant,
            "baselines": sorted(self.baselines),
            "comparisons": self.count,
            "better": self.better,
            "equal": self.equal,
            "worse": self.worse,
            "judged": self.judged,
            "judge_prefers_a_place": self.place,
            "gain": (self.better - self.worse) / self.count,
            "interval": [low, high],
            "cost_ratio": median(self.cost_ratios) if self.cost_ratios else None,
            "seconds_ratio": median(self.seconds_ratios) if self.seconds_ratios else None,
            "evidence": self.evidence,
        }


def interval(better: int, worse: int, count: int) -> tuple[float, float]:
    """The 95 % interval of the gain. Pure."""
    pairs = count + 2
    b, c = (better + 0.5) / pairs, (worse + 0.5) / pairs
    half = _Z * sqrt((b + c - (b - c) ** 2) / pairs)
    return max(-1.0, b - c - half), min(1.0, b - c + half)


def gains(results: Iterable[Result], homes: int, tenant: str | None = None) -> tuple[list[Gain], dict[str, int]]:
    """By tenant and pattern; and by tenant, how many comparisons came to no verdict. Each job counts once; a job of pattern `compare` that
    no planner has begun says nothing: its id does not follow from what it says it has measured.
    """
    newest = {result.job: result for result in results if result.pattern == COMPARE.name and tenant in (None, result.tenant)}
    found: dict[tuple[str, str], Gain] = {}
    failed: dict[str, int] = {}
    for result in newest.values():
        if result.status is not Status.SUCCEEDED or result.answer is None:
            failed[result.tenant] = failed.get(result.tenant, 0) + 1
            continue
        try:
            one = Comparison.model_validate_json(result.answer.text)
        except ValidationError:
            continue
        if comparison_id(one.job, one.accepted_at, homes) == result.job:
            found.setdefault((result.tenant, one.pattern), Gain(one.pattern, result.tenant)).add(one)
    return [found[key] for key in sorted(found)], dict(sorted(failed.items()))
