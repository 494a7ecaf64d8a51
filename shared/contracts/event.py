"""Events: facts in a job's history, append-only on `job-events`. A live job is the fold of its events.

`epoch` is the offset of the writer's PlannerStarted. An event is valid if and only if its epoch equals the offset of the last
PlannerStarted before it (ARCHITECTURE, planner protocol).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter

from shared.contracts.agents import NOBODY, Team
from shared.contracts.base import (
    MANY,
    RECORD_BYTES,
    ClaimId,
    Contract,
    Count,
    EpochSeconds,
    Explanation,
    Label,
    ModelName,
    NodeId,
    Offset,
    Ordinal,
    Partition,
    PositiveSeconds,
    PriorityClass,
    Quantity,
    ScheduleId,
    Seconds,
    Sentence,
    StepId,
    Text,
    adapter,
)
from shared.contracts.batch import BatchChanged
from shared.contracts.budget import TenantAccount, TenantLimitNeared, TenantShare
from shared.contracts.chat import Answer
from shared.contracts.conversation import ConversationChanged, TurnBegun
from shared.contracts.critique import Policies
from shared.contracts.delayed import DelayedJob
from shared.contracts.fact import Fact
from shared.contracts.failure import Failure
from shared.contracts.job import HeldJob, InputRef, Job, ReplyTo
from shared.contracts.limits import Limits
from shared.contracts.result import Result
from shared.contracts.review import ReviewDecided, ReviewEscalated, ReviewOpened, ReviewWithdrawn
from shared.contracts.taken import TakenAhead
from shared.contracts.usage import Timings, Usage

MOST_ASKS = 16
"""First asks that ride in JobAccepted, each of at most 5 kB beside an input of 96 kB; what more there are stand by themselves."""


class PlannerStarted(Contract):
    """A planner took the partition. Its offset is the epoch of what follows."""

    type: Literal["planner_started"] = "planner_started"
    nonce: Label
    planner: Label
    version: Ordinal = 1


class FirstAsk(Contract):
    """A step that the pattern wants. Its body is not stored: the pattern, run again, renders the same. `choice`: `agents/suiting`."""

    step: StepId
    path: Sentence
    agent: Label
    model: ModelName
    reserved_tokens: Count = 0
    reserved_micros: Count | None = None
    """Estimated cost, in millionths of the cluster's currency; absent where no price is known."""
    charged_day: Count | None = None
    """The day that the tenant's budget is charged for the first attempt; absent where the tenant has none."""
    unfunded: bool | None = None
    """The first attempt waits for the tenant's budget (StepFunded)."""
    node: NodeId | None = None
    """Whose mailbox the planner wrote the first attempt into, beside this event, and why, for people; absent where a router chooses."""
    why: Sentence = ""
    choice: Explanation | None = None


class JobAccepted(Fact):
    """The job is in. Versions and limits are pinned here."""

    _part: ClassVar = "request"

    type: Literal["job_accepted"] = "job_accepted"
    request: Annotated[Job | HeldJob, Field(union_mode="left_to_right")]
    client_id: bool = False
    """The caller gave the id."""
    priority_class: PriorityClass
    home: Partition
    source: Sentence
    """topic/partition/offset of the job's record."""
    source_offset: Offset
    pattern_version: Ordinal
    limits: Limits
    deadline_at: EpochSeconds
    deadline_seconds: PositiveSeconds | None = None
    """Set where no user gave an instant: so long from acceptance, and `deadline_at` is only its writer's guess, for people.
    A planner that takes over counts on from the arrival times of the records, never from its own wall clock: one that is three minutes
    ahead would else expire every interactive job."""
    reply: ReplyTo | None = None
    trace: Label | None = None
    """W3C traceparent of the caller."""
    digest: Label
    """Of the request: tells a repeated submission from another body under the same id."""
    asks: tuple[FirstAsk, ...] = Field(default=(), max_length=MOST_ASKS)
    """The steps that it asks for at once: as many StepAsked behind it (`facts_of`)."""
    key: Label | None = None
    """What the keys file calls the API key that it came with: for sums of usage; nothing of the key itself."""
    team: Team = Field(default_factory=lambda: NOBODY)
    """What its pattern uses of the registry, as it was when the job was accepted. A plain default would be copied for each event read."""
    policies: Policies = ()
    """Its tenant's, as they were then."""


class CallerJoined(Fact):
    """Another record asked for this live job again. `reply`: where a final is owed to its caller; absent: nobody is owed one.

    Nothing of the job changes. But who has been superseded without knowing finds that out, and does not pass a record that its successor
    must answer.
    """

    type: Literal["caller_joined"] = "caller_joined"
    reply: ReplyTo | None = None


class InputMoved(Fact):
    """The job's input was written again, before retention came to it, and lies here from now on."""

    type: Literal["input_moved"] = "input_moved"
    input_ref: InputRef


class StepAsked(FirstAsk, Fact):
    """The pattern wants this step."""

    type: Literal["step_asked"] = "step_asked"


class StepClaimedBy(Fact):
    """The claim that stands for this attempt."""

    type: Literal["step_claimed"] = "step_claimed"
    step: StepId
    attempt: Ordinal
    claim: ClaimId
    node: NodeId
    mailbox: Partition
    lease_seconds: Seconds
    why: Explanation | None = None
    """Of the node (`shared/placement/why.py`)."""


class LastAnswer(Contract):
    """The accepted outcome of a step, but for its answer."""

    step: StepId
    attempt: Ordinal
    node: NodeId | None = None
    usage: Usage = Usage()
    timings: Timings = Timings()
    why: Explanation | None = None
    """As in StepClaimedBy, where no claim was recorded."""


class StepAnswered(LastAnswer, Fact):
    """The accepted outcome of the step. The pattern goes on from here."""

    type: Literal["step_answered"] = "step_answered"
    answer: Answer


class AttemptFailed(Fact):
    """An attempt ended without an answer. `retry_after_seconds`: the wait before the next one; absent: the step has failed for good."""

    type: Literal["attempt_failed"] = "attempt_failed"
    step: StepId
    attempt: Ordinal
    failure: Failure
    retry_after_seconds: Seconds | None = None
    counted: bool = True
    """False where the attempt does not count against the limit (released)."""
    usage: Usage = Usage()
    why: Explanation | None = None
    """As in StepAnswered."""


class StepRetried(Fact):
    """The next attempt has begun; of a streaming step every earlier one is waste from here on."""

    type: Literal["step_retried"] = "step_retried"
    step: StepId
    attempt: Ordinal
    avoid: tuple[NodeId, ...] = Field(default=(), max_length=MANY)
    prefix: Text | None = None
    """Of a streaming step: the answer's text that the caller has been shown already. The attempt continues it, and repeats none of it."""
    prefix_tokens: Count | None = None
    """Of `prefix`, as counted by the nodes that wrote it."""
    charged_day: Count | None = None
    unfunded: bool | None = None
    """As in StepAsked, of this attempt."""


class StepWaits(Fact):
    """A router says that no live node can run this attempt, and what is missing. It waits for one; being busy is not that."""

    type: Literal["step_waits"] = "step_waits"
    step: StepId
    attempt: Ordinal
    missing: tuple[Sentence, ...] = Field(max_length=64)
    """One phrase each; empty: there is such a node again."""


class StepFunded(Fact):
    """The tenant's budget covers the attempt that waited for it: it goes out."""

    type: Literal["step_funded"] = "step_funded"
    step: StepId
    attempt: Ordinal
    charged_day: Count


class WorkWasted(Fact):
    """An outcome that history had not asked for, or asked for no longer: counted, never used."""

    type: Literal["work_wasted"] = "work_wasted"
    step: StepId
    attempt: Ordinal
    claim: ClaimId | None = None
    usage: Usage


class TimerSet(Fact):
    """The pattern sleeps until `due_at` by its writer's clock."""

    type: Literal["timer_set"] = "timer_set"
    step: StepId
    path: Sentence
    due_at: EpochSeconds
    due_after: Seconds | None = None
    """The same in seconds from acceptance: what counts for another planner."""


class TimerFired(Fact):
    """The sleep is over."""

    type: Literal["timer_fired"] = "timer_fired"
    step: StepId
    idle_seconds: Seconds = 0.0
    """As in ReviewDecided. A reader that ignores it counts sleeps against default deadlines."""


class LimitNeared(Fact):
    """An alert: `used` has reached the soft fraction of this limit of the job. Once a limit."""

    type: Literal["limit_neared"] = "limit_neared"
    limit: Label
    """calls, tokens, cost, steps, wall_seconds"""
    used: Quantity
    bound: Quantity


class JobDelayed(Fact):
    """Intake has read the job and sent it to `delays.*` until it is due. It is not live: it is accepted when it comes back."""

    _part: ClassVar = "waits"

    type: Literal["job_delayed"] = "job_delayed"
    waits: DelayedJob


class CancelRecorded(Fact):
    """A cancel of a job that the planner does not hold, kept until intake passes it, or a time; or of one whose attempts are stopped."""

    type: Literal["cancel_recorded"] = "cancel_recorded"
    reason: Sentence
    until: EpochSeconds | None = None
    """Forgotten then, if the job has not come."""
    ended: bool = False
    """The job, delayed, was settled by this cancel: when it comes back it is dropped."""


class JobStopped(Fact):
    """The job is to end with this failure: attempts that run are stopped, and awaited for a moment. Of cancels CancelRecorded says it."""

    type: Literal["job_stopped"] = "job_stopped"
    failure: Failure


class ScheduleFired(Fact):
    """The run of a schedule that was due at `due_at` began as `job`, whose JobAccepted follows in the same batch.

    Of each schedule the last one is written again now and then, so that the watermark may pass it; then nothing follows.
    """

    type: Literal["schedule_fired"] = "schedule_fired"
    schedule: ScheduleId
    due_at: EpochSeconds


class IdsRemembered(Contract):
    """Ids of callers whose jobs have ended lately, so that a successor knows them without reading history back: those whose settle events
    lie in [since, until). The newest of these events in force names all that are still needed.
    """

    type: Literal["ids_remembered"] = "ids_remembered"
    epoch: Offset
    at: EpochSeconds
    since: Offset
    until: Offset
    ids: bytes = Field(max_length=RECORD_BYTES)
    """Of each id: hash (8 bytes), offset of its settle event after `since` (4), seconds since 1970 of the end (4); little-endian."""
    earlier: tuple[Offset, ...] = Field(default=(), max_length=1_000)
    """Where the other events of this type lie that are still needed."""


class JobSettled(Fact):
    """The end. Self-contained: the result and where it goes are derived from this event alone."""

    _part: ClassVar = "result"

    type: Literal["job_settled"] = "job_settled"
    result: Result
    reply: ReplyTo | None = None
    trace: Label | None = None
    client_id: bool = False
    digest: Label = ""
    key: Label | None = None
    """As in JobAccepted."""
    answered: LastAnswer | None = None
    """The step whose answer is the result's: a StepAnswered before it (`facts_of`)."""


class JobSnapshot(Fact):
    """The events of a long-lived job, written again so that the watermark may pass the old ones. Valid only with all its parts.

    `facts` are the job's own facts as JSON texts, each with its original content; the parts concatenated give them in order.
    """

    type: Literal["job_snapshot"] = "job_snapshot"
    snapshot: Label
    part: Count
    parts: Ordinal
    age_seconds: Seconds | None = None
    """Of the job, from its acceptance on."""
    idle_seconds: Seconds | None = None
    """Of it: as in ReviewDecided."""
    facts: tuple[Text, ...] = Field(max_length=MANY)


Event = Annotated[
    PlannerStarted | JobDelayed | JobAccepted | CallerJoined | InputMoved | StepAsked | StepClaimedBy | StepAnswered | AttemptFailed
    | StepRetried | StepWaits | StepFunded | WorkWasted | TimerSet | TimerFired | LimitNeared | CancelRecorded | JobStopped | ScheduleFired
    | IdsRemembered | TakenAhead | JobSettled | JobSnapshot | TenantShare | TenantAccount | TenantLimitNeared
    | ReviewOpened | ReviewDecided | ReviewEscalated | ReviewWithdrawn | TurnBegun | ConversationChanged | BatchChanged,
    Field(discriminator="type"),
]  # fmt: skip
EVENT: TypeAdapter[Event] = adapter(Event)


def joined(before: Event | None, event: Event) -> Event | None:
    """Both as one event, `event` next behind `before` in one round of one job; None where each stands by itself. `facts_of` parts them."""
    if isinstance(before, JobAccepted) and isinstance(event, StepAsked) and len(before.asks) < MOST_ASKS:
        return before.of_valid(**{**before.__dict__, "asks": (*before.asks, event)})
    if isinstance(before, StepAnswered) and isinstance(event, JobSettled) and before.answer == event.result.answer:
        return event.of_valid(**{**event.__dict__, "answered": before})
    return None


def facts_of(event: Any) -> tuple[Any, ...]:
    """The facts that an event holds, in their order, each as it stands when it is alone. Every reader of history folds these."""
    if isinstance(event, JobAccepted) and event.asks:
        asked = (StepAsked.of_valid(epoch=event.epoch, job=event.job, at=event.at, **ask.__dict__) for ask in event.asks)
        return event.of_valid(**{**event.__dict__, "asks": ()}), *asked
    if isinstance(event, JobSettled) and event.answered is not None and event.result.answer is not None:
        answered = StepAnswered.of_valid(
            epoch=event.epoch, job=event.job, at=event.at, answer=event.result.answer, **event.answered.__dict__
        )
        return answered, event.of_valid(**{**event.__dict__, "answered": None})
    return (event,)
