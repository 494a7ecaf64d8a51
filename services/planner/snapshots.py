"""Snapshots: the events of a long-lived job written again, so that the watermark may pass the old ones. Pure."""

from __future__ import annotations

from services.planner.book import Book
from services.planner.live import LiveJob
from services.planner.round import Round
from shared.contracts.event import JobSnapshot

_PART_BYTES = 128 * 1024


def due(book: Book, expected: int, distance: int) -> list[LiveJob]:
    """Live jobs that hold the watermark more than `distance` records behind the end; oldest first."""
    late = []
    for job in book.jobs.values():
        if expected - job.first_offset <= distance:
            break
        if job.settled is None:
            late.append(job)
    return late


def write(book: Book, round_: Round, job: LiveJob, name: str) -> None:
    """Append the job's facts in parts; `first_offset` moves to the first part once the round is acknowledged."""
    parts = _parts(job.facts)
    round_.firsts[job.id] = len(round_.events.get(job.id, ()))
    for number, facts in enumerate(parts):
        event = JobSnapshot(
            epoch=book.epoch,
            job=job.id,
            at=round_.wall,
            snapshot=name,
            part=number,
            parts=len(parts),
            facts=tuple(fact.decode() for fact in facts),
        )
        round_.add(job.id, event)


def _parts(facts: list[bytes]) -> list[list[bytes]]:
    parts: list[list[bytes]] = [[]]
    size = 0
    for fact in facts:
        if parts[-1] and size + len(fact) > _PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(fact)
        size += len(fact)
    return parts
