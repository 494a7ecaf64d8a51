"""Canonical: a record on `jobs.*` that names a job belongs to the home of that id. Found elsewhere, it is sent on there.

A producer may use another partitioner than Kafka's own, another key than the id, or none; the same id may come once more by another
partition, and a cancel by its key. At one home they all meet. What is rightly keyed pays no hop.

The record that is sent on is acknowledged before the position passes the one that was read. *Trace:* forwarded, committed, the planner
dies, the producer gives the record up: a job that was acknowledged to its caller is nowhere. After a crash it may be sent on twice: that
is a repeat like any other.

Unmet: cancels on `jobs.*` that nobody knows the job of. Each may be ahead of its job, so it is kept as a guess (`state/cancels`).

After a while without the job its sender is told, by a dead letter: a cancel that is lost in silence costs money. The guess stays.
The position does not pass the cancel's record until then, so a successor tells what this planner could not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import NamedTuple

from services.planner.deciding.admission import JobInput
from shared.contracts import headers, ids
from shared.contracts.base import RECORD_BYTES, PriorityClass
from shared.contracts.outcome import CancelRequested
from shared.errors import InvalidInput, InvalidRecord, TooLarge
from shared.kafka.port import Headers, Message, OriginalRecord, Record, tenant_of
from shared.kafka.sizes import message_bytes
from shared.telemetry import metrics

SECONDS = 5.0
"""How long the job may be behind its cancel before somebody is told."""


def unknown_job() -> InvalidInput:
    """Nobody knows the job of this cancel."""
    return InvalidInput(
        "no job of this id is here or was lately (of one that waits for its not_before nothing is); if it comes within 7 days it is"
        " cancelled. The key of a cancel is the job's id as `results` shows it (of a tenant other than default: tenant/id), not another"
        " key that the job's record had",
        code="unknown_job",
    )


class _Waiting(NamedTuple):
    record: Record
    priority_class: PriorityClass
    job: str
    until: float


class Unmet:
    """By topic, in the order of arrival, which is that of offsets and of their time; apart those from ahead of an unread backlog.

    Monotonic seconds.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, bool], deque[_Waiting]] = {}

    def add(self, record: Record, priority_class: PriorityClass, job: str, now: float, *, ahead: bool = False) -> None:
        """Its job is not known. `ahead`: it may lie in what is not read: there is time until all before the cancel is taken."""
        until = inf if ahead else now + SECONDS
        self._waiting.setdefault((record.topic, ahead), deque()).append(_Waiting(record, priority_class, job, until))

    def over(self, now: float, known: Callable[[str, float], bool], position: Callable[[str], int]) -> list[_Waiting]:
        """Those whose time is over and whose job has not come (`known`: whether it is here, or was). `position`: all before it is taken."""
        found = []
        for (topic, ahead), waiting in self._waiting.items():
            while waiting and (waiting[0].record.offset < position(topic) if ahead else waiting[0].until <= now):
                one = waiting.popleft()
                if not known(one.job, now):
                    found.append(one)
        return found

    def ahead(self, topic: str) -> int:
        """How many of those there are."""
        return len(self._waiting.get((topic, True), ()))

    def held(self) -> Iterator[Record]:
        """The records of all that wait."""
        return (one.record for waiting in self._waiting.values() for one in waiting)

    @property
    def next_due(self) -> float:
        """When to look again."""
        return min((waiting[0].until for waiting in self._waiting.values() if waiting), default=inf)

    def clamp(self, positions: dict[str, int]) -> dict[str, int]:
        """Positions that do not pass what waits."""
        clamped = dict(positions)
        for (topic, ahead), waiting in self._waiting.items():
            if waiting:
                first = min(one.record.offset for one in waiting) if ahead else waiting[0].record.offset
                clamped[topic] = min(clamped.get(topic, first), first)
        return clamped


def original(record: Record) -> Record:
    """The record that a caller sent: what is told of a forwarded one is told of that."""
    lay = headers.Envelope(record.headers).forwarded_from()
    if lay is None:
        return record
    kept = tuple(header for header in record.headers if header[0] != headers.FORWARDED_FROM)
    return OriginalRecord(lay.topic, lay.partition, lay.offset, lay.timestamp, record.key, record.value, kept, tenant_of(record))


def onward(record: Record, given: JobInput | CancelRequested, here: int, homes: int) -> Message | None:
    """The record on its way home; None where it is at home. A job without an id of its own is at home where it lies.

    Raises InvalidRecord for a record that was sent here before: somebody knows another number of homes, and it would go round for ever.
    Raises TooLarge for one that a mark would make too large.
    """
    if isinstance(given, JobInput):
        if given.job.id is None:
            return None
        job = given.id
    else:
        job = given.job
    home = ids.home_of(job, homes)
    if home == here:
        return None
    if headers.find(record.headers, headers.FORWARDED_FROM) is not None:
        raise InvalidRecord(f"the record was sent on to partition {here}, but its id is at home on {home} of {homes}")
    message = sent_on(
        record, home, record.key, record.value, record.headers, tenant=given.job.tenant if isinstance(given, JobInput) else None
    )
    metrics.JOBS_FORWARDED.inc()
    return message


def sent_on(record: Record, home: int, key: bytes | None, value: bytes | None, said: Headers, *, tenant: str | None) -> Message:
    """The record for another partition, with a mark of where its caller put it. Raises TooLarge where there is no room for that."""
    lay = headers.Envelope(record.headers).forwarded_from() or headers.Origin(
        record.topic, record.partition, record.offset, record.timestamp
    )
    kept = tuple(header for header in said if header[1] is not None)  # a header without a value says nothing, an empty one might
    message = Message(record.topic, value, key, home, (*kept, lay.header(headers.FORWARDED_FROM)), tenant or tenant_of(record))
    if message_bytes(message) > RECORD_BYTES:
        raise TooLarge("the record, sent on to its id's home with a mark of where it lay, is too large")
    return message
