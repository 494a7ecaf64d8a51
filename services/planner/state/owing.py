"""Owing: a job that has ended is out when all that its end owes is acknowledged: its result, and the stops of its attempts.

Until then it stays in the book, the watermark before it, and a successor finds it and sends all of it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from services.planner.job.ended import EndedJob

if TYPE_CHECKING:
    from services.planner.job.live import LiveJob
    from services.planner.state.book import Book


def owe(book: Book, jobs: Iterable[str]) -> None:
    """Each time that a job is named here a stop of one of its attempts is on its way."""
    for job_id in jobs:
        job = book.jobs.get(job_id)
        if job is not None:
            job.stops_owed += 1


def stopped(book: Book, job_id: str, release: Callable[[], None]) -> None:
    """One of them is acknowledged."""
    job = book.jobs.get(job_id)
    if job is not None:
        job.stops_owed -= 1
        leave(book, job)
    release()


def leave(book: Book, job: LiveJob) -> None:
    """Little is kept of a job that is out."""
    if job.published and not job.stops_owed:
        offset = book.kept_jobs.offset(job.id)
        assert offset is not None, "it is published after its events are acknowledged"
        book.kept_jobs.drop(job.id)
        book.ended[job.id] = EndedJob.of(job, offset)
