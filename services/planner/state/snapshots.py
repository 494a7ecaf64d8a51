"""Snapshots: the events of a long-lived job written again, so that the watermark may pass the old ones. Pure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from services.planner.draft import Draft
from services.planner.job.live import LiveJob
from services.planner.kept import Kind
from shared.contracts.event import JobSnapshot
from shared.processing.tries import Chore

_PART_BYTES = 240 * 1024
"""Of the facts as they lie in the record, quoted once more; with the envelope below the bound of a record."""


def kept_jobs(may: Callable[[Chore], bool]) -> Kind[str, LiveJob]:
    """Live, or the result not yet out: those are told again in full, these stay where they are."""
    numbers = count()

    def again(draft: Draft, job_id: str) -> bool:
        job = kept.things[job_id]
        if job.settled is not None or job_id in draft.events or not may(Chore("the snapshot", job_id)):
            return False
        write(kept, draft, job, f"{draft.epoch}-{next(numbers)}")
        return True

    kept = Kind[str, LiveJob]("jobs", again)
    return kept


def write(kept: Kind[str, LiveJob], draft: Draft, job: LiveJob, name: str) -> None:
    """Append the job's facts in parts; its place moves to the first part once the last is acknowledged."""
    parts = _parts(job.facts)
    begins: list[int] = []
    draft.whose[job.id] = job.accepted.request.tenant
    for number, facts in enumerate(parts):
        event = JobSnapshot(
            **draft.about(job.id),
            snapshot=name,
            part=number,
            parts=len(parts),
            age_seconds=max(0.0, draft.now - job.accepted_due),
            idle_seconds=job.idle(draft.now) or None,
            facts=tuple(fact.decode() for fact in facts),
        )
        last = number == len(parts) - 1
        draft.add(job.id, event, begins.append, *([lambda _: kept.lies(job.id, draft.wall, begins[0])] if last else ()))


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
