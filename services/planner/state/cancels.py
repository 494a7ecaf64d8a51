"""Cancels: of jobs that this home does not hold. Such a job was not read yet, or has ended long ago, or waits in `delays.*`.

A delayed job that the sender of the cancel knows to be delayed ends at once: its settle event needs nothing but what the cancel tells.
It is dropped when it comes back, so the cancel is carried until then and beyond. Every other cancel is carried as a guess: the job is
ended when it comes. Guesses push out the oldest of them; a cancel that ended a job is never pushed out, so beyond a bound no more of
them are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from services.planner import counters
from services.planner.round import Round
from services.planner.state.carried import Carried
from shared.contracts.bounds import LONGEST_DELAY_SECONDS
from shared.contracts.delayed import DelayedJob
from shared.contracts.event import CancelRecorded, JobSettled
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Result, Status
from shared.errors import InvalidInput
from shared.telemetry import logs, metrics

if TYPE_CHECKING:
    from services.planner.state.book import Book

log = logs.get(__name__)

KEPT_SECONDS = LONGEST_DELAY_SECONDS
"""How long a job may come late, or once more, and still meet its cancel."""
CLOCK_SKEW_SECONDS = 60.0
"""A job due sooner may be live, or have ended, with a planner whose clock is ahead: it is not settled but waited for."""
_SWEEP_SECONDS = 60.0
_REASON_CHARACTERS = 200


class TooManyCancels(InvalidInput):
    """More delayed jobs are cancelled than this partition can remember."""

    code = "too_many_cancels"


class Cancels:
    """What is remembered of them. `guesses`, `certain`: how many of each kind."""

    def __init__(self, guesses: int, certain: int) -> None:
        self._most_guesses, self._most_certain = guesses, certain
        self._guesses = Carried[CancelRecorded]()
        self._certain = Carried[CancelRecorded]()
        self._unpublished: set[str] = set()
        """Ended here, the result not acknowledged: the event stays where it is, so that a successor finds the settle event."""
        self._swept_at = -inf

    def __contains__(self, job: object) -> bool:
        return job in self._guesses or job in self._certain

    def __iter__(self) -> Iterator[str]:
        yield from self._guesses
        yield from self._certain

    def __len__(self) -> int:
        return len(self._guesses) + len(self._certain)

    @property
    def full(self) -> bool:
        """No further job may be ended by its cancel."""
        return len(self._certain) >= self._most_certain

    def ended(self, job: str) -> CancelRecorded | None:
        """The cancel that settled this delayed job."""
        return self._certain.get(job)

    def keep(self, event: CancelRecorded) -> None:
        """A new one."""
        if event.ended:
            self._certain.put(event.job, event)
            self._unpublished.add(event.job)
            return
        self._guesses.put(event.job, event)
        if len(self._guesses) > self._most_guesses:
            metrics.CANCELS_FORGOTTEN.inc()
            self._guesses.drop_oldest()

    def restore(self, event: CancelRecorded, offset: int) -> None:
        """One found in replay."""
        (self._certain if event.ended else self._guesses).put(event.job, event, offset)

    def unpublished(self, job: str) -> None:
        """Found in replay: the settle event that belongs to it; its result is published again."""
        if job in self._certain:
            self._unpublished.add(job)

    def published(self, job: str) -> None:
        """The result is acknowledged."""
        self._unpublished.discard(job)

    def begins_at(self, job: str, offset: int) -> None:
        """Its event is acknowledged at `offset`."""
        (self._certain if job in self._certain else self._guesses).begins_at(job, offset)

    def met(self, job: str) -> bool:
        """The job has come: its guess is forgotten. Whether there was one."""
        return self._guesses.drop(job) is not None

    def forget(self, wall: float) -> None:
        """Drop those whose time is over; looks once a minute."""
        if 0 <= wall - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = wall
        for carried in (self._guesses, self._certain):
            carried.drop_if(lambda job, event: (event.until or inf) <= wall and job not in self._unpublished)

    @property
    def lowest(self) -> int | None:
        """Offset that the watermark may not pass."""
        return min((c.lowest for c in (self._guesses, self._certain) if c.lowest is not None), default=None)

    def rewrite(self, round_: Round, epoch: int, expected: int, distance: int) -> None:
        """Append those again that hold the watermark too far behind."""
        for carried in (self._guesses, self._certain):
            for job, event in carried.stale(expected, distance, round_.wall):
                if job not in round_.events and job not in self._unpublished:
                    append(round_, event.model_copy(update={"epoch": epoch, "at": round_.wall}))


def append(round_: Round, event: CancelRecorded) -> None:
    """Its place is learned from the acknowledgement."""
    round_.add(event.job, event)
    round_.firsts[event.job] = len(round_.events[event.job]) - 1


def known(book: Book, job: str, now: float) -> bool:
    """Whether this job is here, or was lately."""
    return job in book.jobs or job in book.ended or book.settled_ids.find(job, now) is not None


def record(cancels: Cancels, round_: Round, epoch: int, outcome: CancelRequested) -> None:
    """Remember a cancel of a job that is not here, which may end it. Raises TooManyCancels."""
    waits = outcome.waits
    if waits is not None and waits.due_at - round_.wall > CLOCK_SKEW_SECONDS:
        _end(cancels, round_, epoch, outcome, waits)
        return
    until = max(round_.wall, waits.due_at if waits else 0.0) + KEPT_SECONDS
    event = CancelRecorded(epoch=epoch, job=outcome.job, at=round_.wall, reason=outcome.reason[:_REASON_CHARACTERS], until=until)
    append(round_, event)
    cancels.keep(event)


def _end(cancels: Cancels, round_: Round, epoch: int, outcome: CancelRequested, waits: DelayedJob) -> None:
    if cancels.full:
        raise TooManyCancels
    event = CancelRecorded(
        epoch=epoch,
        job=outcome.job,
        at=round_.wall,
        reason=outcome.reason[:_REASON_CHARACTERS],
        until=waits.due_at + KEPT_SECONDS,
        ended=True,
    )
    append(round_, event)
    cancels.keep(event)
    result = cancelled(outcome.job, waits, event)
    settled = JobSettled(epoch=epoch, job=outcome.job, at=round_.wall, result=result, client_id=True, digest=waits.digest)
    round_.settle(settled)
    log.info("delayed_job_cancelled", job=outcome.job)
    counters.settled(result.status, waits.priority_class).inc()


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
    )
