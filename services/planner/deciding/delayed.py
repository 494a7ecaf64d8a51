"""Delayed: jobs that come before their time. They are sent to `delays.*` and come back when they are due; nothing of them stays in memory.

Nothing is promised about the order in which they come back. That a job is delayed is an event, so that everybody can see it.
"""

from __future__ import annotations

from services.planner.deciding.admission import JobInput
from services.planner.round import Round
from services.planner.state.book import Book
from shared.contracts import headers, ids
from shared.contracts.bounds import too_far
from shared.contracts.delayed import DelayedJob
from shared.contracts.event import JobDelayed
from shared.contracts.ids import Maker, digest_of
from shared.contracts.job import Job
from shared.kafka.port import Message, Record
from shared.processing.delays import build_delayed
from shared.topics import Topics


def must_wait(book: Book, given: JobInput, record: Record, wall: float) -> bool:
    """Whether intake sends this job away until it is due; one that is known here, or asks too much, is answered now.

    What comes from the delay service is due, whatever the clock here says: two machines' clocks would send it to and fro.
    """
    due_at = _due_at(given.job)
    if headers.find(record.headers, headers.WAS_DELAYED) is not None:
        return False
    if due_at is None or due_at <= wall or given.job.not_before is None or too_far(given.job.not_before, wall):
        return False
    return given.id not in book.cancels and given.id not in book.jobs and given.id not in book.out


def _due_at(job: Job) -> float | None:
    """When it comes back: a deadline that passes before `not_before` is told when it passes."""
    return job.not_before if job.not_before is None or job.deadline_at is None else min(job.not_before, job.deadline_at)


def postpone(round_: Round, given: JobInput, record: Record, topics: Topics) -> Message:
    """The job on its way to `delays.*`, with its id and back to this home."""
    due_at = _due_at(given.job)
    assert due_at is not None, "only a job that must wait is postponed"
    public = ids.public(given.id)
    job = given.job.model_copy(update={"id": public})
    waits = DelayedJob(
        due_at=due_at,
        since=round_.wall,
        tenant=given.job.tenant,
        priority_class=given.priority_class,
        pattern=given.job.pattern,
        model=given.job.model,
        digest=headers.Envelope(record.headers).request_digest() or digest_of(job.to_bytes()),
        callback=given.job.callback,
    )
    round_.add(given.id, JobDelayed(**round_.about(given.id), waits=waits))
    made = () if given.job.id is not None else ((headers.MADE_BY, Maker.PLANNER.value.encode()),)
    again = Message(record.topic, job.record(), public.encode(), round_.book.home, (*headers.read_ones(record.headers), *made), job.tenant)
    return build_delayed(topics, again, due_at, round_.wall)
