"""LiveJob: one job as the fold of its events. `apply` is used live and in replay alike; it decides nothing.

Times that are not in events (`due_at`, monotonic seconds) are armed by the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.planner.job.open_step import Claim, OpenStep, Phase
from shared.contracts.base import StepId
from shared.contracts.conversation import TurnBegun
from shared.contracts.event import (
    AttemptFailed,
    CallerJoined,
    CancelRecorded,
    Event,
    InputMoved,
    JobAccepted,
    JobSettled,
    JobStopped,
    LimitNeared,
    StepAnswered,
    StepAsked,
    StepClaimedBy,
    StepFunded,
    StepRetried,
    StepWaits,
    TimerFired,
    TimerSet,
    WorkWasted,
)
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import ReplyTo
from shared.contracts.review import Deliberation, ReviewDecided, ReviewEscalated, ReviewOpened, ReviewWithdrawn
from shared.contracts.usage import Usage
from shared.patterns.context import Context, SoFar
from shared.patterns.port import Pattern
from shared.patterns.run import Run
from shared.scheduling.retry import DISPOSITION, Disposition

_REMEMBERED_NODES = 8
_NOTHING_USED = Usage()
_AVOIDED = frozenset({FailureKind.UNCLAIMED, *(kind for kind, what in DISPOSITION.items() if what is Disposition.ELSEWHERE)})
"""After these the next attempt avoids the node. A released step names none: its node will say itself whether it has places."""


@dataclass(slots=True)
class LiveJob:
    """A job in memory: live, or settled and its result not yet out (then `out.OutJob`)."""

    id: str
    accepted: JobAccepted
    run: Run
    steps: dict[StepId, OpenStep] = field(default_factory=dict)
    usage: Usage = _NOTHING_USED
    steps_asked: int = 0
    attempts: int = 0
    settled: JobSettled | None = None
    published: bool = False
    """The result is acknowledged (state)."""
    stops_owed: int = 0
    """Stops of attempts that are not acknowledged (state)."""
    settled_offset: int = -1
    """Of the settle event, once it is acknowledged."""
    facts: list[bytes] = field(default_factory=list)
    """The job's events as JSON, for a snapshot."""
    size: int = 0
    """Bytes of the facts, also when they are dropped at the end."""
    accepted_due: float = 0.0
    """Monotonic; when it was accepted, which may lie before this machine's start."""
    deadline_due: float = float("inf")
    """Monotonic."""
    wall_due: float = float("inf")
    """Monotonic; of the wall-time limit."""
    soft_wall_due: float = float("inf")
    """Monotonic; when the wall-time limit is near."""
    claim_news: list[StepClaimedBy] = field(default_factory=list)
    """Claims that are folded in memory and not yet appended (state)."""
    abandoned: dict[StepId, OpenStep] = field(default_factory=dict)
    """Steps that nobody waits for any more: to be stopped, and kept until their claims have said what they used (state)."""
    followers: list[ReplyTo] = field(default_factory=list)
    """Callers that submitted the same id again while the job was live, and are owed a final."""
    funded: bool = False
    """A step of it was charged to the tenant: it counts as a running job."""
    neared: set[str] = field(default_factory=set)
    """Limits whose soft bound the history has warned of."""
    ending: Failure | None = None
    """Why the job is to end: nothing is wanted any more, and what its running attempts have used is awaited for a moment."""
    ends_due: float = float("inf")
    """Monotonic; the end of that moment (state)."""
    idle_seconds: float = 0.0
    """So long it has only waited for people and for its own timers, up to the last event that says so."""
    idle_since: float | None = None
    """Monotonic; set while it only waits (state)."""
    placed: bool = True
    """It takes a place of its home's live jobs (state)."""
    awaits_turn: bool = False
    """Of a conversation's job: its pattern may not begin yet."""
    turn: TurnBegun | None = None
    """It has begun."""
    turn_due: float = float("inf")
    """Monotonic; when it asks for its turn again (state)."""
    turn_owed: bool = False
    """The conversation's owner may not know yet that it has ended (state)."""
    line_owed: bool = False
    """The owner of the batch of which it is a line may not (state)."""
    broken: Failure | None = None
    """History and pattern disagree; the job is settled with this."""

    @classmethod
    def of(cls, event: JobAccepted, pattern: Pattern) -> LiveJob:
        """As it was accepted; its pattern is not yet started."""
        seconds = event.deadline_seconds or max(0.0, event.deadline_at - event.at)
        context = Context(event.job, event.team, event.limits, seconds, event.priority_class)
        run = Run(event.job, pattern, event.request, context, event.policies)
        return cls(event.job, event, run, awaits_turn=event.request.conversation is not None)

    @staticmethod
    def folds(event: Event) -> bool:
        """Whether `apply` knows what to do with it."""
        return type(event) in _APPLY

    @property
    def source_topic(self) -> str:
        return self.accepted.source.rsplit("/", 2)[0]

    @property
    def source_offset(self) -> int:
        return self.accepted.source_offset

    @property
    def reserved_tokens(self) -> int:
        return sum(s.reserved_tokens for s in self.steps.values())

    @property
    def reserved_micros(self) -> int:
        return sum(s.reserved_micros for s in self.steps.values())

    @property
    def stands_still(self) -> bool:
        """Whether its deadline does while it only waits: nobody named it."""
        return self.accepted.deadline_seconds is not None and self.accepted.request.deadline_seconds is None

    @property
    def only_waits(self) -> bool:
        """Whether nothing goes on with it until people decide, its turn comes, or a timer of its own is due."""
        if self.awaits_turn:
            return True
        if self.settled is not None or self.ending is not None or self.run.wants or not self.steps:
            return False
        return all(step.request is None for step in self.steps.values())

    def idle(self, now: float) -> float:
        """For how many seconds it has only waited until now; monotonic."""
        return self.idle_seconds + (0.0 if self.idle_since is None else max(0.0, now - self.idle_since))

    def apply(self, event: Event) -> None:
        """Fold one of this job's own events, in order of history. Raises NonDeterministicPattern (StepAsked, TimerSet, ReviewOpened)."""
        _APPLY[type(event)](self, event)


def _joined(job: LiveJob, event: CallerJoined) -> None:
    if event.reply is not None:
        job.followers.append(event.reply)


def _asked(job: LiveJob, event: StepAsked) -> None:
    wanted = job.run.record(event.step)
    job.steps[event.step] = OpenStep(event.step, event.path, wanted.request, event.reserved_tokens, event.reserved_micros or 0)
    _charge(job, job.steps[event.step], event)
    job.steps_asked += 1
    job.attempts += 1


def _moved(job: LiveJob, event: InputMoved) -> None:
    job.accepted = job.accepted.model_copy(update={"request": job.accepted.request.model_copy(update={"input_ref": event.input_ref})})
    for step in job.steps.values():
        if step.request is not None and step.request.input_ref is not None:
            step.request = step.request.model_copy(update={"input_ref": event.input_ref})


def _charge(job: LiveJob, step: OpenStep, event: StepAsked | StepRetried | StepFunded) -> None:
    """The attempt begins, or waits for the tenant's budget."""
    step.charged_day = event.charged_day
    job.funded = job.funded or event.charged_day is not None
    waits = not isinstance(event, StepFunded) and event.unfunded
    step.phase = Phase.UNFUNDED if waits else Phase.ASKED


def _funded(job: LiveJob, event: StepFunded) -> None:
    step = job.steps.get(event.step)
    if step is not None and step.attempt == event.attempt:
        _charge(job, step, event)


def _turn_begun(job: LiveJob, event: TurnBegun) -> None:
    job.turn, job.awaits_turn, job.idle_seconds = event, False, event.idle_seconds
    job.run.job = job.accepted.request  # its input may have moved while it waited
    job.run.start(event.context, event.older)


def _timer_set(job: LiveJob, event: TimerSet) -> None:
    job.run.record(event.step)
    job.steps[event.step] = OpenStep(event.step, event.path, None, phase=Phase.SLEEPING, wakes_at=event.due_at)
    job.steps[event.step].wakes_after = event.due_after


def _timer_fired(job: LiveJob, event: TimerFired) -> None:
    job.idle_seconds = event.idle_seconds
    if job.steps.pop(event.step, None) is not None:
        job.run.resume(event.step)
        _drop_abandoned(job)


def _review_opened(job: LiveJob, event: ReviewOpened) -> None:
    job.run.record(event.step)
    job.steps[event.step] = OpenStep(event.step, event.path, None, phase=Phase.REVIEWED, review=Deliberation.of(event))


def _review_changed(job: LiveJob, event: ReviewDecided | ReviewEscalated | ReviewWithdrawn) -> None:
    step = job.steps.get(event.step) or job.abandoned.get(event.step)
    if isinstance(event, ReviewDecided):
        job.idle_seconds = event.idle_seconds
    if step is None or step.review is None:
        return
    step.review.fold(event)
    if step.review.over:
        job.abandoned.pop(event.step, None)
        if job.steps.pop(event.step, None) is not None:
            job.run.resume(event.step, step.review.decision)
            _drop_abandoned(job)


def _claimed(job: LiveJob, event: StepClaimedBy) -> None:
    step = job.steps.get(event.step) or job.abandoned.get(event.step)
    if step is not None and step.attempt == event.attempt:
        step.claim = Claim(event.claim, event.node, event.mailbox, event.lease_seconds)
        step.phase, step.missing = Phase.CLAIMED, ()


def _unplaced(job: LiveJob, event: StepWaits) -> None:
    step = job.steps.get(event.step)
    if step is not None and step.attempt == event.attempt:
        step.missing = event.missing
        step.told_missing += 1


def _answered(job: LiveJob, event: StepAnswered) -> None:
    job.usage = job.usage.plus(event.usage)
    if job.steps.pop(event.step, None) is not None:
        idle = job.idle_seconds if job.stands_still else 0.0
        job.run.context.so_far = SoFar(job.usage, event.at - job.accepted.at, event.timings.total_ms / 1e3, idle)
        job.run.resume(event.step, event.answer)
        _drop_abandoned(job)


def _attempt_failed(job: LiveJob, event: AttemptFailed) -> None:
    job.usage = job.usage.plus(event.usage.as_waste())
    step = job.steps.get(event.step)
    if step is None or step.attempt != event.attempt:
        return
    step.failures += event.counted
    step.charged_day = None
    step.claim, step.routed = None, None
    if event.failure.kind is FailureKind.CONTEXT_LENGTH:
        step.beyond_window = max(step.beyond_window or 0, event.failure.window or 0)
    node = event.failure.node
    if node is not None and event.failure.kind in _AVOIDED and node not in step.avoid:
        step.avoid = (*step.avoid, node)[-_REMEMBERED_NODES:]
    if event.retry_after_seconds is None:
        del job.steps[event.step]
        job.run.resume(event.step, failure=event.failure)
        _drop_abandoned(job)
    else:
        step.phase = Phase.WAITING
        step.retry_after_seconds = event.retry_after_seconds


def _retried(job: LiveJob, event: StepRetried) -> None:
    step = job.steps.get(event.step)
    if step is not None:
        step.attempt, step.avoid = event.attempt, event.avoid
        _charge(job, step, event)
        step.claim, step.routed = None, None
        step.prefix, step.prefix_tokens, step.shown, step.missing = event.prefix or "", event.prefix_tokens, None, ()
        job.attempts += 1


def _wasted(job: LiveJob, event: WorkWasted) -> None:
    """The attempt that stood when the job was to end was stopped for its caller's sake; any other is waste of ours."""
    step = job.abandoned.get(event.step)
    stood = step is not None and step.stands(event.attempt, event.claim)
    job.usage = job.usage.plus(event.usage.as_waste(cut_off=stood and job.ending is not None))
    if stood:
        del job.abandoned[event.step]


def _neared(job: LiveJob, event: LimitNeared) -> None:
    job.neared.add(event.limit)


def _cancelled(job: LiveJob, event: CancelRecorded) -> None:
    _end(job, Failure(kind=FailureKind.CANCELLED, message=event.reason))


def _stopped(job: LiveJob, event: JobStopped) -> None:
    _end(job, event.failure)


def _end(job: LiveJob, why: Failure) -> None:
    job.ending, job.awaits_turn = why, False
    job.abandoned.update(job.steps)
    job.steps.clear()


def _settled(job: LiveJob, event: JobSettled) -> None:
    job.settled, job.awaits_turn = event, False
    job.steps.clear()
    job.abandoned.clear()
    job.claim_news.clear()
    job.facts.clear()
    job.run.close()


def _drop_abandoned(job: LiveJob) -> None:
    """Abandoned steps leave the fold with the event that abandoned them; the engine stops their claims."""
    for abandoned in job.run.take_abandoned():
        step = job.steps.pop(abandoned, None)
        if step is not None:
            job.abandoned[abandoned] = step


_APPLY: dict[type, Callable[[LiveJob, Any], None]] = {
    CallerJoined: _joined,
    InputMoved: _moved,
    TurnBegun: _turn_begun,
    StepAsked: _asked,
    TimerSet: _timer_set,
    TimerFired: _timer_fired,
    ReviewOpened: _review_opened,
    ReviewDecided: _review_changed,
    ReviewEscalated: _review_changed,
    ReviewWithdrawn: _review_changed,
    StepClaimedBy: _claimed,
    StepAnswered: _answered,
    AttemptFailed: _attempt_failed,
    StepRetried: _retried,
    StepWaits: _unplaced,
    StepFunded: _funded,
    WorkWasted: _wasted,
    CancelRecorded: _cancelled,
    JobStopped: _stopped,
    LimitNeared: _neared,
    JobSettled: _settled,
}
