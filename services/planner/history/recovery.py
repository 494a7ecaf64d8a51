"""Recovery: the fold of `job-events` from the watermark to one's own PlannerStarted, and what must be driven on after it.

Which events are valid is the rule of shared/epochs.py; the watermark always names a valid record, so the first one read is in force.
Everything else in the log is a fenced writer's and is passed over.

How old a job is, the log tells: records bear their arrival time by the brokers' clock, one's own PlannerStarted is the last of them.
No planner's wall clock is asked, so one that is minutes ahead expires nobody by a default deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from services.planner.deciding import driving, ending, streams, turns, waits
from services.planner.draft import Publish
from services.planner.history.upkeep import flush_ledgers
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep, Phase
from services.planner.round import Round
from services.planner.state import dates
from services.planner.state.book import internal
from shared.contracts.budget import TenantLimitNeared
from shared.contracts.conversation import TurnBegun
from shared.contracts.event import (
    EVENT,
    AttemptFailed,
    CallerJoined,
    CancelRecorded,
    Event,
    JobAccepted,
    JobDelayed,
    JobSettled,
    JobSnapshot,
    PlannerStarted,
    StepAnswered,
    TimerFired,
    facts_of,
)
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.review import ReviewDecided
from shared.epochs import EpochFilter
from shared.errors import NonDeterministicPattern
from shared.telemetry import logs

log = logs.get(__name__)

_STOPPED = (FailureKind.LEASE_EXPIRED, FailureKind.NODE_LOST)
"""With these an attempt's worker is told to stop, if there is one."""


class Replay:
    """Builds a book from history."""

    def __init__(self, round_: Round) -> None:
        self._book, self._round = round_.book, round_
        self._epochs = EpochFilter(gapless=True)
        self._parts: dict[str, list[JobSnapshot]] = {}
        self._part_offset: dict[str, int] = {}
        self._orphans: list[JobSettled] = []
        self._born: dict[str, float] = {}
        """Job → when it was accepted, seconds of the log's time."""
        self._newest = 0.0
        self.events = 0

    def fold(self, offset: int, value: bytes | None, timestamp_ms: int = 0) -> None:
        """One record, in order. What cannot be read is no event of any planner: reported, passed over."""
        self._newest = max(self._newest, timestamp_ms / 1000)
        try:
            event: Event = EVENT.validate_json(value or b"")
        except ValidationError as error:
            # Without the traceback: pydantic's holds parts of the value.
            log.warning("unreadable_event", offset=offset, home=self._book.home, problems=error.error_count())
            return
        if not self._admits(offset, event):
            return
        self.events += 1
        try:
            self._take(offset, event, value or b"")
        except Exception as error:  # of this event: neither its partition nor another job's history suffers
            self._break(offset, event, error)

    def admits_value(self, offset: int, value: bytes) -> bool:
        """Whether this is history, although it cannot be read."""
        return self._epochs.admits_value(value, offset)

    def _take(self, offset: int, event: Event, value: bytes) -> None:
        if isinstance(event, JobSnapshot):
            self._snapshot(offset, event)
        elif isinstance(event, JobDelayed | TenantLimitNeared) or (isinstance(event, CallerJoined) and event.reply is None):
            return
        elif (isinstance(event, CancelRecorded) and self._lives(event.job)) or not self._book.kept.restore(event, offset, self._newest):
            self._job_event(offset, event, value)

    def _break(self, offset: int, event: Any, error: Exception) -> None:
        """A job of which an event cannot be folded is nobody's to go on with."""
        log.failure("event_not_folded", error, offset=offset, home=self._book.home)
        job = self._book.jobs.get(getattr(event, "job", ""))
        if job is not None and job.settled is None:
            job.broken = internal()

    def _admits(self, offset: int, event: Event) -> bool:
        """Whether this event is history; a PlannerStarted opens the next epoch and is not a job's fact."""
        if isinstance(event, PlannerStarted):
            self._epochs.started(offset)
            return False
        return self._epochs.admits(event.epoch, offset)

    def _lives(self, job_id: str) -> bool:
        job = self._book.jobs.get(job_id)
        return job is not None and job.settled is None

    def _job_event(self, offset: int, event: Any, value: bytes) -> None:
        if not (isinstance(event, JobAccepted) and self._lives(event.job)):
            for number, fact in enumerate(facts_of(event)):
                self._fact(offset, fact, (value,) if number == 0 else ())

    def _fact(self, offset: int, event: Any, values: tuple[bytes, ...]) -> None:
        """`values`: the whole event, with the first of its facts."""
        book, job = self._book, self._book.jobs.get(event.job)
        if isinstance(event, JobAccepted):
            # A settled job is accepted anew when its id had left the window: its first end was published long ago.
            if job is None or job.settled is not None:
                book.kept_jobs.drop(event.job)
                job = self._round.enter(event)
                book.begins_at(job.id, event.at, offset)
                self._born[job.id] = self._newest
                book.live_count.keep(job, *values)
                if job.awaits_turn:
                    self._rest(job, anew=True)
                else:
                    job.run.start()
        elif job is None:
            # Its start lies before the watermark: it had ended and its result was acknowledged, or a snapshot follows.
            if isinstance(event, JobSettled):
                self._orphans.append(event)
                self._ended(offset, event)
        elif job.settled is None:
            if isinstance(event, JobSettled):
                self._stop_all(job)
                book.end(job, event)
                self._ended(offset, event)
            else:
                book.live_count.keep(job, *values)
                self._apply(job, event)

    def _ended(self, offset: int, event: JobSettled) -> None:
        if event.client_id or event.job in self._book.jobs:
            self._book.ends_at(event.job, self._newest, offset)

    def _apply(self, job: LiveJob, event: Any) -> None:
        if job.broken is not None:
            return
        self._stop_lost(job, event)
        self._learn(job, event)
        try:
            job.apply(event)
        except NonDeterministicPattern as error:
            job.broken = Failure(kind=FailureKind.NON_DETERMINISTIC_PATTERN, message=error.message)
        self._rest(job, anew=isinstance(event, TimerFired | ReviewDecided | TurnBegun))

    def _rest(self, job: LiveJob, *, anew: bool) -> None:
        """Since when it only waits, in seconds of the log's time: `idle_seconds` of an event holds what was before it."""
        if not job.only_waits:
            job.idle_since = None
        elif anew or job.idle_since is None:
            job.idle_since = self._newest

    def _learn(self, job: LiveJob, event: Any) -> None:
        """What a call costs: a successor that does not know reserves nothing of a cost limit until the next outcome."""
        step = job.steps.get(event.step) if isinstance(event, StepAnswered) else None
        if step is not None and step.request is not None:
            self._book.prices.learn(step.request.model, event.usage)

    def _stop_lost(self, job: LiveJob, event: Any) -> None:
        """The stop of a claim that expired, or that another worker's answer overtook, may be lost: it is sent again."""
        step = job.steps.get(event.step) if isinstance(event, AttemptFailed | StepAnswered) else None
        if step is None or step.claim is None:
            return
        if isinstance(event, AttemptFailed):
            lost = event.attempt == step.attempt and event.failure.kind in _STOPPED
        else:
            lost = event.node != step.claim.node
        if lost:
            self._round.stop(job, step)

    def _stop_all(self, job: LiveJob) -> None:
        """The stops of a job that ended with claims open may be lost with the planner that sent them: they are sent again."""
        for step in (*job.steps.values(), *job.abandoned.values()):
            self._round.stop(job, step)

    def _snapshot(self, offset: int, event: JobSnapshot) -> None:
        parts = self._parts.setdefault(event.snapshot, [])
        self._part_offset.setdefault(event.snapshot, offset)
        if event.part != len(parts):
            return
        parts.append(event)
        if len(parts) < event.parts:
            return
        first = self._part_offset.pop(event.snapshot)
        facts = [fact.encode() for part in self._parts.pop(event.snapshot) for fact in part.facts]
        job = self._book.jobs.get(event.job)
        if job is None:
            for fact in facts:
                self._job_event(first, EVENT.validate_json(fact), fact)
            self._born[event.job] = self._newest - (event.age_seconds or 0.0)
            job = self._book.jobs.get(event.job)
            if job is not None:
                job.idle_seconds = event.idle_seconds or 0.0
                self._rest(job, anew=True)
        if job is None or job.settled is None:
            self._book.kept_jobs.lies(event.job, event.at, first)

    def finish(self) -> None:
        """Drive on: append what history lacks, send asked-but-unclaimed steps again, publish what is settled, arm every timer anew."""
        book, round_ = self._book, self._round
        for job in book.jobs.values():
            if job.settled is None:
                self._contain(job, self._reserve)
        to_monotonic = round_.now - self._newest
        book.recent_ids.shift(to_monotonic)
        book.kept_ids.resume(to_monotonic, round_.now)
        book.funds.shares.look_again(round_.now)
        book.conversations.resume(round_, to_monotonic)
        book.batches.resume(round_, to_monotonic)
        round_.after.extend(Publish(settled) for settled in self._orphans)
        for settled in self._orphans:
            book.cancels.unpublished(settled.job)
        for job in list(book.jobs.values()):
            if job.settled is not None:
                round_.after.append(Publish(job.settled, tuple(job.followers)))
                round_.owe_end(job)
            elif job.broken is not None:
                driving.give_up(round_, job)
            else:
                self._contain(job, self._resume)
        flush_ledgers(round_)

    def _contain(self, job: LiveJob, work: Callable[[LiveJob], None]) -> None:
        """Work that fails ends this job; the replay goes on."""
        try:
            work(job)
        except Exception as error:
            log.failure("job_not_resumed", error, job=job.id)
            driving.give_up(self._round, job)

    def _reserve(self, job: LiveJob) -> None:
        self._book.funds.resume(job)

    def _resume(self, job: LiveJob) -> None:
        if job.idle_since is not None:
            job.idle_since += self._round.now - self._newest
        dates.begin(job, self._round, max(0.0, self._newest - self._born[job.id]))
        if job.ending is not None:
            ending.wait(self._round, job)
            return
        if job.awaits_turn:
            turns.ask(self._round, job)
            return
        for step in list(job.steps.values()):
            self._rearm(job, step)
        driving.drive(self._round, job)

    def _rearm(self, job: LiveJob, step: OpenStep) -> None:
        """A full period from now for everything relative; sleeps go on where they were."""
        now = self._round.now
        if step.request is None:
            waits.rearm(self._round, job, step)
        elif step.phase is Phase.UNFUNDED:
            self._book.funds.wait(self._round, job, step)
        elif step.phase is Phase.WAITING:
            step.due_at = now + step.retry_after_seconds
            streams.ask_position(self._round, job, step, self._book.home, self._book.policy)
        elif step.claim is not None:
            self._book.lease(step, now, step.claim.lease_seconds)
            self._book.claims[step.claim.id] = (job.id, step.id)
            driving.let_begin(self._round, job, step)
        else:
            self._round.dispatches.append(driving.dispatch(self._round, job, step))
