"""Cancels: of jobs that this home does not hold. Such a job was not read yet, or has ended long ago, or waits in `delays.*`.

A delayed job that the sender of the cancel knows to be delayed ends at once: its settle event needs nothing but what the cancel tells.
It is dropped when it comes back, so the cancel is kept until then and beyond. Every other cancel is kept as a guess: the job is
ended when it comes. Guesses push out the oldest of them; a cancel that ended a job is never pushed out, so beyond a bound no more of
them are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import inf

from services.planner import counters
from services.planner.draft import Draft
from services.planner.kept import KeptEvents
from shared.contracts.bounds import LONGEST_DELAY_SECONDS
from shared.contracts.delayed import DelayedJob
from shared.contracts.event import CancelRecorded, JobSettled
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Result, Status
from shared.errors import InvalidInput
from shared.telemetry import logs, metrics

log = logs.get(__name__)

KEPT_SECONDS = LONGEST_DELAY_SECONDS
"""How long a job may come late, or once more, and still meet its cancel."""
CLOCK_SKEW_SECONDS = 60.0
"""A job due sooner may be live, or have ended, with a planner whose clock is ahead: it is not settled but waited for."""
_SWEEP_SECONDS = 60.0
REASON_CHARACTERS = 200
"""Of what who cancels says; more is cut off."""


class Cancels:
    """What is remembered of them. `guesses`, `certain`: how many of each. `ends_at`: (job, when, offset), of those that end here."""

    def __init__(self, guesses: int, certain: int, ends_at: Callable[[str, float, int], None]) -> None:
        self._most_guesses, self._most_certain, self._ends_at = guesses, certain, ends_at
        self._guesses = KeptEvents("guesses", CancelRecorded, "job", stays=self._stays, tidy=self._tidy, fold=self.restore)
        self._certain = KeptEvents("cancels", CancelRecorded, "job", stays=self._stays, fold=self.restore)
        self.kept = (self._guesses, self._certain)
        self._unpublished: set[str] = set()
        """Ended here, the result not acknowledged: the event stays where it is, so that a successor finds the settle event."""
        self._swept_at = -inf

    def __contains__(self, job: object) -> bool:
        return job in self._guesses.things or job in self._certain.things

    def __iter__(self) -> Iterator[str]:
        yield from self._guesses.things
        yield from self._certain.things

    def guessed(self, job: str) -> bool:
        """Whether this job is to end as soon as it comes."""
        return job in self._guesses.things

    def ended(self, job: str) -> CancelRecorded | None:
        """The cancel that ended this job, if one did."""
        return self._certain.things.get(job)

    def record(self, draft: Draft, outcome: CancelRequested) -> None:
        """Remember a cancel of a job that is not here, which may end it. Raises InvalidInput."""
        waits = outcome.waits
        ends = waits is not None and waits.due_at - draft.wall > CLOCK_SKEW_SECONDS
        if ends and len(self._certain.things) >= self._most_certain:
            raise InvalidInput("More delayed jobs are cancelled than this partition can remember.", code="too_many_cancels")
        until = max(draft.wall, waits.due_at if waits else 0.0) + KEPT_SECONDS
        reason = outcome.reason[:REASON_CHARACTERS]
        event = CancelRecorded(**draft.about(outcome.job), reason=reason, until=until, ended=ends)
        self._of(event).add(draft, event)
        if waits is not None and ends:
            self._end(draft, event, waits)
        elif len(self._guesses.things) > self._most_guesses:
            metrics.CANCELS_FORGOTTEN.inc()
            self._guesses.drop(next(iter(self._guesses.things)))

    def _end(self, draft: Draft, event: CancelRecorded, waits: DelayedJob) -> None:
        self._unpublished.add(event.job)
        result = cancelled(event.job, waits, event)
        settled = JobSettled(**draft.about(event.job), result=result, client_id=True, digest=waits.digest)
        draft.settled(settled, partial(self._ends_at, event.job, draft.now))
        log.info("delayed_job_cancelled", job=event.job)
        counters.settled(result.status, waits.priority_class).inc()

    def unpublished(self, job: str) -> None:
        """Found in replay: the settle event that belongs to it; its result is published again."""
        if job in self._certain.things:
            self._unpublished.add(job)

    def published(self, job: str) -> None:
        """The result is acknowledged."""
        self._unpublished.discard(job)

    def met(self, job: str) -> None:
        """The job has come, and history says so: its guess is forgotten."""
        self._guesses.drop(job)

    def restore(self, event: CancelRecorded, offset: int, written: float) -> None:
        """One found in replay."""
        self._of(event).restore(event, offset, written)

    def _of(self, event: CancelRecorded) -> KeptEvents[CancelRecorded]:
        return self._certain if event.ended else self._guesses

    def _stays(self, draft: Draft, job: str) -> bool:
        """It does not get behind its job, which it would end, nor away from its settle event."""
        return job in draft.events or job in self._unpublished

    def _tidy(self, draft: Draft) -> None:
        """Drop those whose time is over; looks once a minute."""
        if 0 <= draft.wall - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = draft.wall
        for kept in self.kept:
            for job in [job for job, event in kept.things.items() if (event.until or inf) <= draft.wall and job not in self._unpublished]:
                kept.drop(job)


def cancelled(job: str, waits: DelayedJob, event: CancelRecorded) -> Result:
    """The end of a job that never began."""
    return Result(
        job=job,
        tenant=waits.tenant,
        status=Status.CANCELLED,
        failure=Failure(kind=FailureKind.CANCELLED, message=event.reason),
        pattern=waits.pattern,
        priority_class=waits.priority_class,
        accepted_at=waits.since,
        finished_at=event.at,
        callback=waits.callback,
    )
