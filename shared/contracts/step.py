"""Step: one unit of work for one agent, as it travels on `steps.*` and `work.*`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from shared.contracts.base import Capability, Contract, EpochSeconds, JobId, ModelName, NodeId, PriorityClass, StepId, Tenant
from shared.contracts.chat import ChatMessage, Operation, Options
from shared.contracts.job import Needs, ReplyTo


class Step(Contract):
    """One attempt of a step. Everything its router and worker need is inside: neither looks anything up."""

    job: JobId
    id: StepId
    attempt: PositiveInt = 1
    home: NonNegativeInt
    tenant: Tenant = "default"
    priority_class: PriorityClass = PriorityClass.STANDARD
    agent: str = "chat"
    capability: Capability = "chat"
    operation: Operation = Operation.CHAT
    model: ModelName = "auto"
    fallback_models: tuple[ModelName, ...] = ()
    messages: tuple[ChatMessage, ...] = ()
    prompt: str | None = None
    texts: tuple[str, ...] = ()
    options: Options = Options()
    format: Literal["json"] | dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    stream: bool = False
    prefix: str | None = None
    """Text of the answer that earlier attempts have produced and the caller has seen: the model goes on from its end.

    The outcome's answer is the whole text, prefix included."""
    reply: ReplyTo | None = None
    needs: Needs = Needs()
    avoid: tuple[NodeId, ...] = ()
    deadline_at: EpochSeconds | None = None
    lease_seconds: PositiveFloat = 20.0
    estimated_tokens: NonNegativeInt = 0
    unplaced_seconds: float = Field(default=0.0, ge=0)
    """How long this attempt has already waited for a node that could run it (it came back from delay)."""
