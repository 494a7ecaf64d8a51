"""Figures: recovery times of faults from the ledger, throughput. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from infra.chaos.jobs import NEVER, Ledger
from infra.chaos.plan import Fault, FaultKind


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was done. Monotonic seconds; `over_at`: everything that it took away is back."""

    fault: Fault
    at: float
    over_at: float
    recovered_at: float | None
    """All jobs in flight at `at` had ended; None: not within the patience."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of the jobs that were in flight when faults of this kind struck, seconds from the fault to the result."""

    kind: FaultKind
    faults: int
    in_flight: int
    p50: float
    p99: float
    longest: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def waits(ledger: Ledger, at: float) -> list[float]:
    """Seconds from `at` to the result, of the jobs that were in flight then and have ended."""
    return [seconds for _, seconds in slowest(ledger, at, ledger.count)]


def slowest(ledger: Ledger, at: float, count: int = 3) -> list[tuple[int, float]]:
    """(number, seconds from `at` to the result) of the jobs in flight at `at` that took longest; where to look first."""
    rows = enumerate(zip(ledger.acknowledged, ledger.due, ledger.ended, strict=True))
    found = [(number, ended - at) for number, (acknowledged, due, ended) in rows if acknowledged <= at and due <= at < ended < NEVER]
    return sorted(found, key=lambda row: -row[1])[:count]


def recoveries(ledger: Ledger, struck: Iterable[Struck]) -> list[Recovery]:
    """One a kind of fault, in the order of FaultKind."""
    struck = list(struck)
    found = []
    for kind in FaultKind:
        faults = [one for one in struck if one.fault.kind is kind]
        seconds = sorted(wait for one in faults for wait in waits(ledger, one.at))
        if faults:
            longest = seconds[-1] if seconds else 0.0
            found.append(Recovery(kind, len(faults), len(seconds), percentile(seconds, 0.5), percentile(seconds, 0.99), longest))
    return found


def results_per_second(ledger: Ledger, start: float, end: float) -> float:
    """Results seen in [start, end)."""
    return sum(start <= ended < end for ended in ledger.ended) / max(end - start, 1e-9)


def timeline(ledger: Ledger, start: float, bucket_seconds: float = 5.0) -> list[float]:
    """Results a second, bucket by bucket from `start` on."""
    counts: Counter[int] = Counter(int((ended - start) / bucket_seconds) for ended in ledger.ended if start <= ended < NEVER)
    return [counts[bucket] / bucket_seconds for bucket in range(max(counts, default=-1) + 1)]


def longest_silence(ledger: Ledger, start: float, end: float) -> float:
    """Longest time in [start, end) without any result."""
    moments = [start, *sorted(ended for ended in ledger.ended if start <= ended < end), end]
    return max(later - earlier for earlier, later in pairwise(moments))
