"""History: one home's `job-events`, folded by the rule of valid events, and its `outcomes` held against them.

Feed all events in order, then all outcomes. What is wrong in itself is reported at once; the checker judges the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from pydantic import TypeAdapter, ValidationError

from infra.verify.laws import LawKind
from infra.verify.report import RecordPlace, Report
from shared.contracts import headers
from shared.contracts.base import VERSION
from shared.contracts.event import (
    EVENT,
    AttemptFailed,
    JobAccepted,
    JobSettled,
    JobSnapshot,
    PlannerStarted,
    StepAnswered,
    StepAsked,
    StepClaimedBy,
    StepRetried,
    WorkWasted,
    facts_of,
)
from shared.contracts.outcome import OUTCOME, StepClaimed, StepFailed, StepSucceeded
from shared.contracts.versions import NEWEST
from shared.epochs import EpochFilter
from shared.errors import InvalidRecord
from shared.kafka.port import Record

NOWHERE = -1


def digest(value: bytes) -> bytes:
    """Compact stand-in for a value, for comparison."""
    return blake2b(value, digest_size=16).digest()


def parsed(adapter: TypeAdapter[Any], record: Record, newest: int = VERSION) -> Any:
    """The message, or None when it is none, or of a version that is not known here."""
    try:
        if headers.Envelope(record.headers).version() > newest:
            return None
        return adapter.validate_json(record.value or b"")
    except (ValidationError, InvalidRecord):
        return None


class SeenJob:
    """What must be known of one job."""

    __slots__ = ("accepted_at", "client_id", "earlier", "ended_at", "offset", "records", "result", "run", "settled", "source", "whole")

    def __init__(self) -> None:
        self.whole = False
        """Its acceptance was read, so its history is complete."""
        self.run = 0
        """Times it was accepted."""
        self.offset = NOWHERE
        """Of the acceptance that counts."""
        self.source = NOWHERE
        """Offset of the record that it accepted."""
        self.accepted_at = 0.0
        self.client_id = False
        self.settled = NOWHERE
        """Offset of the settle event."""
        self.ended_at = 0.0
        self.result = b""
        """Digest of the result that the settle event holds."""
        self.earlier: tuple[bytes, ...] = ()
        """Results of earlier runs of an id that was used again after its window."""
        self.records = 0
        """Job records that carried this id."""


class SeenStep:
    """What must be known of one step."""

    __slots__ = ("answer", "answered", "attempt", "between", "claim", "closed", "job", "offset", "run", "sent")

    def __init__(self, job: str, run: int, attempt: int) -> None:
        self.job = job
        self.run = run
        self.attempt = attempt
        self.between = False
        """That attempt failed, and the next has not begun."""
        self.claim = ""
        """Of that attempt: the one that stands."""
        self.closed = False
        """It failed for good."""
        self.answered = 0
        """The attempt whose outcome was accepted; 0: none."""
        self.answer = b""
        self.offset = NOWHERE
        self.sent = False
        """An outcome with the accepted answer was read."""


class History:
    """One home. `epoch`: in force where reading begins, None when it cannot be known. `outcomes_from`: epoch seconds from which on
    `outcomes` is complete.
    """

    def __init__(self, report: Report, *, epoch: int | None, window_seconds: float, outcomes_from: float) -> None:
        self._report = report
        self._epochs = EpochFilter(epoch)
        self._guessing = epoch is None
        self._window_seconds = window_seconds
        self._outcomes_from = outcomes_from
        self.jobs: dict[str, SeenJob] = {}
        self.steps: dict[str, SeenStep] = {}
        self.stale_results: dict[str, list[bytes]] = {}
        """job → digests of the results that fenced planners' settle events hold."""
        self._stale_attempts: dict[str, int] = {}
        self._snapshots: set[str] = set()
        """Snapshots that are read instead of a beginning that is gone."""
        self._executed: set[int] = set()
        self._on: dict[type, Callable[[Any, RecordPlace], None]] = {
            JobAccepted: self._accepted,
            JobSettled: self._settled,
            JobSnapshot: self._snapshot,
            StepAsked: self._asked,
            StepRetried: self._retried,
            StepClaimedBy: self._claimed,
            AttemptFailed: self._failed,
            StepAnswered: self._answered,
            WorkWasted: self._wasted,
        }

    # Events

    def on_event(self, record: Record) -> None:
        """One record of `job-events`, in order."""
        event, place = parsed(EVENT, record, NEWEST), RecordPlace.of(record)
        if event is None:
            self._report.add(LawKind.UNREADABLE, place, _key(record), "not an event of a known version")
        elif isinstance(event, PlannerStarted):
            self._report.counts.epochs += 1
            self._epochs.started(record.offset)
            self._guessing = False
        elif self._admits(event, place):
            self._fold(event, place)
        else:
            self._report.counts.stale_events += 1
            self._on_stale(event)

    def _admits(self, event: Any, place: RecordPlace) -> bool:
        known = self._epochs.epoch
        if known is not None and event.epoch > known and not self._guessing:
            self._report.add(
                LawKind.IMPOSSIBLE_EPOCH,
                place,
                getattr(event, "job", place.topic),
                f"epoch {event.epoch}; the last PlannerStarted is at {known}",
            )
            return False
        return self._epochs.admits(event.epoch, place.offset)

    def _on_stale(self, event: Any) -> None:
        if isinstance(event, JobSettled):
            self.stale_results.setdefault(event.job, []).append(digest(event.result.to_bytes()))
        elif isinstance(event, StepRetried):
            self._stale_attempts[event.step] = max(event.attempt, self._stale_attempts.get(event.step, 0))

    def _fold(self, event: Any, place: RecordPlace) -> None:
        for fact in facts_of(event):
            on = self._on.get(type(fact))
            if on is not None:
                on(fact, place)

    def _job(self, job: str) -> SeenJob:
        state = self.jobs.get(job)
        if state is None:
            state = self.jobs[job] = SeenJob()
        return state

    def _accepted(self, event: JobAccepted, place: RecordPlace) -> None:
        job = self._job(event.job)
        if job.whole and job.settled == NOWHERE:
            self._report.add(LawKind.ACCEPTED_TWICE, place, event.job, f"accepted and not ended since offset {job.offset}")
        elif job.settled != NOWHERE and (not event.client_id or event.at - job.ended_at < self._window_seconds):
            self._report.add(
                LawKind.ACCEPTED_TWICE, place, event.job, f"ended {event.at - job.ended_at:.1f} s before, at offset {job.settled}"
            )
        if job.settled != NOWHERE:
            job.earlier = (*job.earlier, job.result)
        job.whole, job.run = True, job.run + 1
        job.offset, job.accepted_at, job.client_id, job.settled = place.offset, event.at, event.client_id, NOWHERE
        job.source = event.source_offset
        self._report.counts.accepted += 1

    def _settled(self, event: JobSettled, place: RecordPlace) -> None:
        job = self._job(event.job)
        if job.settled != NOWHERE:
            self._report.add(LawKind.SETTLED_TWICE, place, event.job, f"ended before at offset {job.settled}")
            return
        job.settled, job.ended_at = place.offset, event.at
        job.result = digest(event.result.to_bytes())
        self._report.counts.settled[event.result.status.value] += 1

    def _asked(self, event: StepAsked, place: RecordPlace) -> None:
        job, step = self._job(event.job), self.steps.get(event.step)
        if job.settled != NOWHERE:
            self._report.add(LawKind.AFTER_THE_END, place, event.job, f"a step asked for; ended at offset {job.settled}")
        if step is None or step.run != job.run:
            self.steps[event.step] = SeenStep(event.job, job.run, 1)
            self._report.counts.steps += 1
        elif job.whole:
            self._report.add(LawKind.ASKED_TWICE, place, event.job, f"step {event.step}")

    def _step(self, event: Any) -> SeenStep | None:
        """The step, if history asked for it; of a job whose beginning was not read, whatever comes was asked for."""
        step = self.steps.get(event.step)
        if step is None and not self._job(event.job).whole:
            step = self.steps[event.step] = SeenStep(event.job, 0, event.attempt)
        return step

    def _live_step(self, event: StepClaimedBy | AttemptFailed | StepRetried, place: RecordPlace) -> SeenStep | None:
        """The same, if neither it nor its job has ended."""
        step, job = self._step(event), self._job(event.job)
        if step is None:
            self._report.add(LawKind.ATTEMPTS_NOT_INCREASING, place, event.job, f"{event.type} of a step that was not asked for")
        elif job.settled != NOWHERE or step.answered or step.closed:
            ended = "its job" if job.settled != NOWHERE else "the step"
            self._report.add(LawKind.AFTER_THE_END, place, event.job, f"{event.type} of attempt {event.attempt}; {ended} had ended")
        else:
            return step
        return None

    def _retried(self, event: StepRetried, place: RecordPlace) -> None:
        self._report.counts.retries += 1
        step = self._live_step(event, place)
        if step is None:
            return
        if self.jobs[event.job].whole and (event.attempt != step.attempt + 1 or not step.between):
            how = "failed" if step.between else "not failed"
            self._report.add(
                LawKind.ATTEMPTS_NOT_INCREASING, place, event.job, f"attempt {event.attempt} after {step.attempt}, which had {how}"
            )
        step.attempt, step.between, step.claim = max(step.attempt, event.attempt), False, ""

    def _is_current(self, event: StepClaimedBy | AttemptFailed, step: SeenStep, place: RecordPlace) -> bool:
        if event.attempt != step.attempt:
            detail = f"{event.type} of attempt {event.attempt}; current: attempt {step.attempt}"
            self._report.add(LawKind.ATTEMPTS_NOT_INCREASING, place, event.job, detail)
        return event.attempt == step.attempt

    def _claimed(self, event: StepClaimedBy, place: RecordPlace) -> None:
        step = self._live_step(event, place)
        if step is None or not self._is_current(event, step, place):
            return
        if step.claim not in ("", event.claim):
            self._report.add(LawKind.CLAIMED_TWICE, place, event.job, f"attempt {event.attempt}: {step.claim} stood, now {event.claim}")
        step.claim = event.claim

    def _failed(self, event: AttemptFailed, place: RecordPlace) -> None:
        step = self._live_step(event, place)
        if step is None or not self._is_current(event, step, place):
            return
        if step.between:
            self._report.add(LawKind.ATTEMPTS_NOT_INCREASING, place, event.job, f"attempt {event.attempt} failed twice")
        step.closed, step.between = event.retry_after_seconds is None, event.retry_after_seconds is not None

    def _answered(self, event: StepAnswered, place: RecordPlace) -> None:
        self._report.counts.answers += 1
        step, job = self._step(event), self.jobs[event.job]
        if step is None:
            self._report.add(LawKind.ANSWER_NOT_ASKED, place, event.job, "the step was not asked for")
            return
        if step.answered:
            self._report.add(LawKind.ANSWERED_TWICE, place, event.job, f"answered before at offset {step.offset}")
            return
        if job.settled != NOWHERE or step.closed or event.attempt > step.attempt:
            why = "the job had ended" if job.settled != NOWHERE else "the step had failed" if step.closed else "the attempt had not begun"
            self._report.add(LawKind.ANSWER_NOT_ASKED, place, event.job, why)
        step.answered, step.offset = event.attempt, place.offset
        step.answer = digest(event.answer.to_bytes())
        step.sent = event.at < self._outcomes_from

    def _snapshot(self, event: JobSnapshot, place: RecordPlace) -> None:
        """Of a job whose beginning is gone, the snapshot is the beginning. Its answers' outcomes are gone as well."""
        if event.part == 0 and not self._job(event.job).whole:
            self._snapshots.add(event.snapshot)
        if event.snapshot not in self._snapshots:
            return
        for fact in event.facts:
            folded = EVENT.validate_json(fact)
            self._fold(folded, place)
            if isinstance(folded, StepAnswered) and folded.step in self.steps:
                self.steps[folded.step].sent = True

    def _wasted(self, event: WorkWasted, place: RecordPlace) -> None:
        self._report.counts.wasted_outcomes += 1

    # Outcomes

    def on_outcome(self, record: Record, *, refused: bool) -> None:
        """One record of `outcomes`. `refused`: it lies on the dead letters."""
        outcome = parsed(OUTCOME, record)
        if outcome is None:
            if not refused:
                self._report.add(LawKind.UNREADABLE, RecordPlace.of(record), _key(record), "neither an outcome nor a dead letter")
            return
        if not isinstance(outcome, StepClaimed | StepSucceeded | StepFailed):
            return
        step = self.steps.get(outcome.step)
        if isinstance(outcome, StepSucceeded):
            self._on_success(outcome, step)
        if step is not None and outcome.attempt > step.attempt:
            self._on_unbegun(outcome, RecordPlace.of(record))

    def _on_success(self, outcome: StepSucceeded, step: SeenStep | None) -> None:
        execution = hash((outcome.step, outcome.attempt, outcome.claim))
        if execution not in self._executed:
            self._executed.add(execution)
            self._report.counts.executions += 1
        if step is not None and step.answered == outcome.attempt and not step.sent:
            step.sent = step.answer == digest(outcome.answer.to_bytes())

    def _on_unbegun(self, outcome: Any, place: RecordPlace) -> None:
        """A retry goes out only after its event is acknowledged. A live job's event may lie behind what was read."""
        job = self.jobs.get(outcome.job)
        if job is None or job.settled == NOWHERE or not job.whole:
            return
        fenced = self._stale_attempts.get(outcome.step, 0) >= outcome.attempt
        kind = LawKind.FENCED_WRITER if fenced else LawKind.ATTEMPT_NOT_BEGUN
        self._report.add(kind, place, outcome.job, f"{outcome.type} of attempt {outcome.attempt}, which no valid event began")


def _key(record: Record) -> str:
    return (record.key or b"").decode("utf-8", "replace")
