"""Outcomes: what came of an attempt, sent to the job's home partition of `outcomes`. `type` tells which."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from shared.contracts.base import (
    MANY,
    ClaimId,
    Contract,
    Count,
    Explanation,
    JobId,
    ModelName,
    NodeId,
    Offset,
    Ordinal,
    Partition,
    PositiveSeconds,
    Sentence,
    StepId,
    Text,
    adapter,
)
from shared.contracts.batch import BatchCancelled, BatchSubmitted, LineEnded
from shared.contracts.budget import BudgetGranted, BudgetRecalled, BudgetRequested
from shared.contracts.chat import Answer
from shared.contracts.conversation import ConversationDropped, ConversationSet, TurnAsked, TurnEnded, TurnGranted, TurnRefused
from shared.contracts.delayed import DelayedJob
from shared.contracts.failure import Failure
from shared.contracts.review import ReviewGiven
from shared.contracts.usage import Timings, Usage


class _OfAttempt(Contract):
    job: JobId
    step: StepId
    attempt: Ordinal


class StepRouted(_OfAttempt):
    """A router put the attempt into a node's mailbox. Starts the claim timeout."""

    type: Literal["routed"] = "routed"
    node: NodeId
    mailbox: Partition
    offset: Offset
    model: ModelName | None = None
    why: Sentence = ""
    """As in StepClaimed; from routers of before, in a few words."""


class StepUnplaced(_OfAttempt):
    """No live node that a router knows can run the attempt; told again when what is missing changes. The attempt waits on."""

    type: Literal["unplaced"] = "unplaced"
    missing: tuple[Sentence, ...] = Field(max_length=64)
    """What a node would need, one phrase each; empty: there is such a node again."""


class StepClaimed(_OfAttempt):
    """A worker took the attempt and has begun it. The first claim in the log stands."""

    type: Literal["claimed"] = "claimed"
    claim: ClaimId
    node: NodeId
    mailbox: Partition
    lease_seconds: PositiveSeconds
    why: Explanation | None = None
    """As the step's record said (header `why`)."""


class ClaimsRenewed(Contract):
    """All claims that a worker still runs for jobs of this home."""

    type: Literal["renewed"] = "renewed"
    node: NodeId
    claims: tuple[ClaimId, ...] = Field(max_length=MANY)
    mailbox: Partition | None = None
    """Where to answer those that nobody knows; absent from workers of before."""


class WorkerStarted(Contract):
    """This boot of the node reads its mailbox from here on, and no earlier one runs: what those have claimed is voided."""

    type: Literal["started"] = "started"
    node: NodeId
    incarnation: Offset
    """The offset of the boot's first Node record in `nodes`."""


class StepSucceeded(_OfAttempt):
    """The attempt's answer."""

    type: Literal["succeeded"] = "succeeded"
    claim: ClaimId | None = None
    node: NodeId | None = None
    answer: Answer
    usage: Usage = Usage()
    timings: Timings = Timings()
    why: Explanation | None = None


class StepFailed(_OfAttempt):
    """The attempt ended without an answer; what was consumed is counted."""

    type: Literal["failed"] = "failed"
    claim: ClaimId | None = None
    node: NodeId | None = None
    failure: Failure
    usage: Usage = Usage()
    timings: Timings = Timings()
    why: Explanation | None = None


class StepReleased(_OfAttempt):
    """A worker read the record and does not run it (draining, another node's, full). No attempt is counted."""

    type: Literal["released"] = "released"
    claim: ClaimId | None = None
    node: NodeId
    reason: Sentence


class StreamPosition(_OfAttempt):
    """All text of the stream that its reader has been shown up to and with this attempt, which broke. The answer to `StreamBroken`."""

    type: Literal["stream_position"] = "stream_position"
    text: Text = ""
    tokens: Count | None = None
    """Of the text, as the nodes counted them."""


class CacheMissed(_OfAttempt):
    """The cache has no answer to this step: it is sent; or, with `follow_seconds`, another step is about to get one, for so long."""

    type: Literal["cache_missed"] = "cache_missed"
    follow_seconds: PositiveSeconds | None = None


class CancelRequested(Contract):
    """Somebody wants the job to end."""

    type: Literal["cancel"] = "cancel"
    job: JobId
    reason: Sentence = "cancelled by the caller"
    waits: DelayedJob | None = None
    """Set where the sender knows that the job waits for its `not_before`: its planner holds nothing of it."""


Outcome = Annotated[
    StepRouted
    | StepUnplaced
    | StepClaimed
    | ClaimsRenewed
    | WorkerStarted
    | StepSucceeded
    | StepFailed
    | StepReleased
    | StreamPosition
    | CacheMissed
    | CancelRequested
    | ReviewGiven
    | BudgetRequested
    | BudgetGranted
    | BudgetRecalled
    | TurnAsked
    | TurnGranted
    | TurnRefused
    | TurnEnded
    | ConversationSet
    | ConversationDropped
    | BatchSubmitted
    | BatchCancelled
    | LineEnded,
    Field(discriminator="type"),
]
OUTCOME: TypeAdapter[Outcome] = adapter(Outcome)


def claim_id(node: NodeId, incarnation: int, number: int) -> ClaimId:
    """Of the boot's claim with this number."""
    return ClaimId(f"{node}.i{incarnation}.{number}")


def incarnation_of(claim: ClaimId) -> int:
    """Whose claim it is; -1, lower than any, of workers of before, whose claims do not say so."""
    _, _, boot = claim.rpartition(".")[0].rpartition(".")
    number = boot.removeprefix("i")
    return int(number) if number != boot and number.isdecimal() else -1
