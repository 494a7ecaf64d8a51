"""Controls: what a node's worker is told (topic `controls`, partition = mailbox)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from shared.contracts.base import MANY, ClaimId, Contract, JobId, NodeId, Ordinal, Sentence, StepId, adapter


class StopStep(Contract):
    """Close the stream of this step's attempts and send nothing more for it, except usage as a failed outcome `cancelled`.

    Without `claim` every attempt up to `attempt` is stopped, also one still in the mailbox. With `claim` only that claim.
    """

    type: Literal["stop"] = "stop"
    node: NodeId | None = None
    """None: every node; nobody knows yet which one a router will choose."""
    job: JobId
    step: StepId
    attempt: Ordinal
    claim: ClaimId | None = None
    reason: Sentence = "cancelled"


class BeginStep(Contract):
    """History holds this claim, so that nobody else will be asked: its step, which must not be done twice, may begin. It may come again."""

    type: Literal["begin"] = "begin"
    node: NodeId
    job: JobId
    step: StepId
    attempt: Ordinal
    claim: ClaimId


class StopClaims(Contract):
    """Nobody knows these claims, which were renewed: end them like `StopStep` does. The stop that was meant for them was lost."""

    type: Literal["stop_claims"] = "stop_claims"
    node: NodeId
    claims: tuple[ClaimId, ...] = Field(max_length=MANY)
    reason: Sentence = "nobody knows the claim"


class Drain(Contract):
    """Stop offering places; finish what runs."""

    type: Literal["drain"] = "drain"
    node: NodeId
    draining: bool = True


Control = Annotated[StopStep | BeginStep | StopClaims | Drain, Field(discriminator="type")]
CONTROL: TypeAdapter[Control] = adapter(Control)
