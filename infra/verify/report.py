"""What the checker found: counts, and of each kind of violation the number and the first examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from infra.verify.laws import DOUBLES, LAWS, LOSSES, LawKind
from shared.kafka.port import Record

EXAMPLES = 5
"""Kept of each kind of violation; all are counted."""


class RecordPlace(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, record: Record) -> RecordPlace:
        return cls(record.topic, record.partition, record.offset)

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Example(NamedTuple):
    """One violation: where it shows, of which job, and what exactly was seen."""

    place: RecordPlace
    job: str
    detail: str


@dataclass(slots=True)
class Counts:
    """What was read, in numbers. Jobs are counted within the time range; the rest over everything that was read."""

    job_records: int = 0
    """On `jobs.*`, without cancels."""
    cancels: int = 0
    """Cancel records on `jobs.*`."""
    resubmitted: int = 0
    """Job records whose id was known already: sent twice, or sent on by delay. Each changed nothing."""
    accepted: int = 0
    """Valid JobAccepted."""
    settled: Counter[str] = field(default_factory=Counter)
    """Valid JobSettled, by status."""
    live: int = 0
    """Accepted and not ended."""
    waiting: int = 0
    """Job records that no planner has taken in yet."""
    delayed: int = 0
    """Jobs that wait for their `not_before`."""
    dead_letters: int = 0
    """Job records that became dead letters."""
    unpublished: int = 0
    """Jobs that have just ended: the result is on its way."""
    steps: int = 0
    retries: int = 0
    """Attempts beyond the first of a step."""
    answers: int = 0
    """Accepted outcomes."""
    executions: int = 0
    """Claims that sent a success. What is above `answers` was work for nothing."""
    wasted_outcomes: int = 0
    """Valid WorkWasted."""
    epochs: int = 0
    """PlannerStarted: how often a planner took a partition."""
    stale_events: int = 0
    """Events of fenced planners: passed over by every reader."""
    shredded: int = 0
    """Records whose key went with their tenant: nobody can judge them. A job that ran meanwhile may look as if a part of it were lost."""

    @property
    def wasted_executions(self) -> int:
        """Steps that ran to their end and were not used: duplicates, cancelled and overtaken ones."""
        return self.executions - self.answers


@dataclass(slots=True)
class Violations:
    """All violations of one kind."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """The checker writes into it; whoever asked reads it."""

    counts: Counts = field(default_factory=Counts)
    findings: dict[LawKind, Violations] = field(default_factory=dict)
    foreign: Container[RecordPlace] = ()
    """Where records lie that are known to be nobody's: that they cannot be read is no violation."""

    def add(self, kind: LawKind, place: RecordPlace, job: str, detail: str = "") -> None:
        """One violation."""
        if kind is LawKind.UNREADABLE and place in self.foreign:
            return
        finding = self.findings.setdefault(kind, Violations())
        finding.count += 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(Example(place, job, detail))

    def count(self, kinds: Iterable[LawKind]) -> int:
        """How many violations of these kinds."""
        return sum(self.findings[kind].count for kind in kinds if kind in self.findings)

    @property
    def violations(self) -> int:
        return self.count(LawKind)

    @property
    def lost(self) -> int:
        """Jobs that did not end, or whose result nobody can read."""
        return self.count(LOSSES)

    @property
    def doubly_accepted(self) -> int:
        return self.count(DOUBLES)

    def as_json(self) -> dict[str, Any]:
        return {
            "violations": self.violations,
            "lost": self.lost,
            "doubly_accepted": self.doubly_accepted,
            "counts": asdict(self.counts) | {"wasted_executions": self.counts.wasted_executions, "settled": dict(self.counts.settled)},
            "findings": [
                {
                    "kind": kind.value,
                    "law": LAWS[kind][0],
                    "meaning": LAWS[kind][1],
                    "count": finding.count,
                    "examples": [{"place": str(e.place), "job": e.job, "detail": e.detail} for e in finding.examples],
                }
                for kind, finding in self.findings.items()
            ],
        }
