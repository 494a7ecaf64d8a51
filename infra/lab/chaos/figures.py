"""Figures: what each fault did to the flow of results, from the ledger; throughput. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from infra.lab.bench.figures import percentile
from infra.lab.chaos.jobs import NEVER, Ledger
from infra.lab.chaos.plan import Fault, FaultKind

BEFORE_SECONDS = 10.0
"""The rate before a fault is taken over so long."""
ENOUGH = 0.8
"""Of the rate before: a second with less is slow."""
IN_A_ROW = 2
"""A single slow second is chance (200 jobs a second arrive as they like); so many in a row are a fault's work."""
GOOD_IN_A_ROW = 3
"""End a slow stretch: one good second may be the flush of what had waited."""
REACH_SECONDS = 10.0
"""A slow stretch is a fault's work when it begins before the fault is over, or so soon afterwards (start, rebalance)."""


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was done. Monotonic seconds; `over_at`: everything that it took away is started again; `until`: the next fault."""

    fault: Fault
    at: float
    over_at: float
    until: float
    in_flight_ended_at: float | None
    """All jobs in flight at `at` had ended; None: not within the patience."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Results from one fault to the next. Seconds; `back_after` None: not before the next fault."""

    rate_before: float
    longest_gap: float
    back_after: float | None


@dataclass(frozen=True, slots=True)
class Times:
    """Of several faults, or several jobs."""

    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        return cls(percentile(seconds, 0.5), percentile(seconds, 0.99), max(seconds, default=0.0))


@dataclass(frozen=True, slots=True)
class Recovery:
    """Faults of one kind: the longest time without any result, and the time until the rate of results was back."""

    kind: FaultKind
    faults: int
    gap: Times
    back: Times | None
    """Of those after which it was back before the next fault; None when it never was."""
    not_back: int


@dataclass(frozen=True, slots=True)
class InFlightEnded:
    """Faults of one kind: from the fault to the results of the jobs that were in flight then."""

    kind: FaultKind
    jobs: int
    times: Times


def rates(moments: Iterable[float], start: float, end: float, bucket_seconds: float = 1.0) -> list[float]:
    """How many a second, bucket by bucket, for the whole buckets of [start, end)."""
    counts = [0] * max(0, int((end - start) / bucket_seconds))
    for moment in moments:
        if start <= moment < end and (bucket := int((moment - start) / bucket_seconds)) < len(counts):
            counts[bucket] += 1
    return [count / bucket_seconds for count in counts]


def rate_before(ledger: Ledger, at: float) -> float:
    """Results a second before `at`; no more than jobs fell due then, since what works off a backlog is faster than it need stay."""
    start = at - BEFORE_SECONDS
    return min(sum(start <= moment < at for moment in moments) / BEFORE_SECONDS for moments in (ledger.ended, ledger.due))


def back_after(per_second: Sequence[float], wanted: float, reach: float) -> float | None:
    """Seconds until the rate is back: the end of the last slow stretch that begins within `reach` seconds; 0 when there is none.

    `per_second`: from the fault on. None when that stretch does not end in it.
    """
    back: float | None = 0.0
    for first, last in _slow_stretches([rate < wanted for rate in per_second]):
        if first <= reach:
            back = None if last is None else float(last)
    return back


def _slow_stretches(slow: Sequence[bool]) -> Iterator[tuple[int, int | None]]:
    """(first second, second after the last slow one; None when good seconds do not follow)."""
    first, good, run, longest = None, 0, 0, 0
    for second, bad in enumerate(slow):
        if bad:
            first, good, run = second if first is None else first, 0, run + 1
            longest = max(longest, run)
        elif first is not None:
            good, run = good + 1, 0
            if good == GOOD_IN_A_ROW:
                if longest >= IN_A_ROW:
                    yield first, second + 1 - good
                first, longest = None, 0
    if first is not None and longest >= IN_A_ROW:
        yield first, None


def flow(ledger: Ledger, struck: Struck) -> Flow:
    """What this fault did."""
    before = rate_before(ledger, struck.at)
    per_second = rates(ledger.ended, struck.at, struck.until)
    return Flow(
        before,
        longest_silence(ledger, struck.at, struck.until),
        back_after(per_second, ENOUGH * before, struck.over_at - struck.at + REACH_SECONDS),
    )


def recoveries(ledger: Ledger, struck: Iterable[Struck]) -> list[Recovery]:
    """One a kind of fault, in the order of FaultKind."""

    def of(kind: FaultKind, faults: Sequence[Struck]) -> Recovery:
        flows = [flow(ledger, one) for one in faults]
        back = [one.back_after for one in flows if one.back_after is not None]
        return Recovery(
            kind, len(faults), Times.of([one.longest_gap for one in flows]), Times.of(back) if back else None, len(flows) - len(back)
        )

    return _by_kind(struck, of)


def in_flight_ended(ledger: Ledger, struck: Iterable[Struck]) -> list[InFlightEnded]:
    """One a kind of fault, in the order of FaultKind."""

    def of(kind: FaultKind, faults: Sequence[Struck]) -> InFlightEnded:
        seconds = [wait for one in faults for wait in waits(ledger, one.at)]
        return InFlightEnded(kind, len(seconds), Times.of(seconds))

    return _by_kind(struck, of)


Row = TypeVar("Row")


def _by_kind(struck: Iterable[Struck], of: Callable[[FaultKind, Sequence[Struck]], Row]) -> list[Row]:
    every = list(struck)
    groups = ((kind, [one for one in every if one.fault.kind is kind]) for kind in FaultKind)
    return [of(kind, faults) for kind, faults in groups if faults]


def waits(ledger: Ledger, at: float) -> list[float]:
    """Seconds from `at` to the result, of the jobs that were in flight then and have ended."""
    return [seconds for _, seconds in slowest(ledger, at, ledger.count)]


def slowest(ledger: Ledger, at: float, count: int = 3) -> list[tuple[int, float]]:
    """(number, seconds from `at` to the result) of the jobs in flight at `at` that took longest; where to look first."""
    rows = enumerate(zip(ledger.acknowledged, ledger.due, ledger.ended, strict=True))
    found = [(number, ended - at) for number, (acknowledged, due, ended) in rows if acknowledged <= at and due <= at < ended < NEVER]
    return sorted(found, key=lambda row: -row[1])[:count]


def results_per_second(ledger: Ledger, start: float, end: float) -> float:
    """Results seen in [start, end)."""
    return sum(start <= ended < end for ended in ledger.ended) / max(end - start, 1e-9)


def longest_silence(ledger: Ledger, start: float, end: float) -> float:
    """Longest time in [start, end) without any result."""
    moments = [start, *sorted(ended for ended in ledger.ended if start <= ended < end), end]
    return max(later - earlier for earlier, later in pairwise(moments))
