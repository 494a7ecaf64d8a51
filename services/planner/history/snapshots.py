"""Snapshots: the events of a long-lived job written again, so that the watermark may pass the old ones. Pure."""

from __future__ import annotations

from services.planner.job.live import LiveJob
from services.planner.retention import stale
from services.planner.round import Round
from services.planner.state.book import Book
from services.planner.state.watermark import UNACKNOWLEDGED
from shared.contracts.event import JobSnapshot
from shared.processing.tries import Chore

_PART_BYTES = 240 * 1024
"""Of the facts as they lie in the record, quoted once more; with the envelope below the bound of a record."""


def due(book: Book, expected: int, distance: int, wall: float) -> list[LiveJob]:
    """Live jobs that hold the watermark more than `distance` records behind the end, or are old; oldest first."""
    late = []
    for job in book.jobs.values():
        if job.first_offset == UNACKNOWLEDGED or not stale(job.first_offset, job.written_at, expected, distance, wall):
            break
        if job.settled is None:
            late.append(job)
    return late


def write_due(book: Book, round_: Round, expected: int, distance: int) -> None:
    """Write those again that hold the watermark too far behind. `expected` names the round: it grows with each append."""
    for number, job in enumerate(due(book, expected, distance, round_.wall)):
        if job.id not in round_.events and book.tries.may(Chore("the snapshot", job.id)):
            write(book, round_, job, f"{book.epoch}-{expected}-{number}")


def write(book: Book, round_: Round, job: LiveJob, name: str) -> None:
    """Append the job's facts in parts; `first_offset` moves to the first part once all of them are acknowledged."""
    parts = _parts(job.facts)
    round_.firsts[job.id] = len(round_.events.get(job.id, ()))
    job.written_at = round_.wall
    for number, facts in enumerate(parts):
        event = JobSnapshot(
            epoch=book.epoch,
            job=job.id,
            at=round_.wall,
            snapshot=name,
            part=number,
            parts=len(parts),
            age_seconds=max(0.0, round_.now - job.accepted_due),
            facts=tuple(fact.decode() for fact in facts),
        )
        round_.add(job.id, event)


def _parts(facts: list[bytes]) -> list[list[bytes]]:
    parts: list[list[bytes]] = [[]]
    size = 0
    for fact in facts:
        quoted = _quoted(fact)
        if parts[-1] and size + quoted > _PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(fact)
        size += quoted
    return parts


def _quoted(fact: bytes) -> int:
    """Bytes of JSON text as a JSON string in a list: quotes and backslashes are escaped, nothing else can need it."""
    return len(fact) + fact.count(b'"') + fact.count(b"\\") + 3
