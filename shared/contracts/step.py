"""Step: one unit of work for one agent, as it travels on `steps.*` and `work.*`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.contracts.base import (
    MANY,
    Capability,
    Contract,
    Count,
    EpochSeconds,
    JobId,
    JsonObject,
    Label,
    ModelName,
    NodeId,
    Ordinal,
    Partition,
    PositiveSeconds,
    PriorityClass,
    Seconds,
    Sentence,
    StepId,
    Tenant,
    Text,
)
from shared.contracts.chat import MOST_TOOLS, ChatMessage, Operation, Options
from shared.contracts.job import InputRef, Needs, ReplyTo


class Step(Contract):
    """One attempt of a step. Everything its router and worker need is inside: neither looks anything up."""

    job: JobId
    id: StepId
    attempt: Ordinal = 1
    home: Partition
    tenant: Tenant = "default"
    priority_class: PriorityClass = PriorityClass.STANDARD
    agent: Label = "chat"
    capability: Capability = "chat"
    operation: Operation = Operation.CHAT
    model: ModelName = "auto"
    fallback_models: tuple[ModelName, ...] = Field(default=(), max_length=8)
    messages: tuple[ChatMessage, ...] = Field(default=(), max_length=2_000)
    prompt: Text | None = None
    texts: tuple[Text, ...] = Field(default=(), max_length=4_096)
    options: Options = Options()
    format: Literal["json"] | JsonObject | None = None
    tools: tuple[JsonObject, ...] = Field(default=(), max_length=MOST_TOOLS)
    stream: bool = False
    prefix: Text | None = None
    """Text of the answer that earlier attempts have produced and the caller has seen: the model goes on from its end.

    The outcome's answer is the whole text, prefix included."""
    reply: ReplyTo | None = None
    needs: Needs = Needs()
    avoid: tuple[NodeId, ...] = Field(default=(), max_length=MANY)
    prefix_tokens: Count | None = None
    """Tokens of `prefix` as the nodes that wrote it counted them; None: nobody said."""
    deadline_at: EpochSeconds | None = None
    """Only of a user: an instant that this cluster made of a duration would be another one on each machine."""
    seconds_left: Seconds | None = None
    """Until the job's deadline where no user gave an instant; counted from when this is read, less the header `waited`."""
    lease_seconds: PositiveSeconds = 20.0
    estimated_tokens: Count = 0
    unplaced_seconds: Seconds = 0.0
    """How long this attempt has already waited for a node that could run it, before its last delay (header `waited`)."""
    missing: tuple[Sentence, ...] = Field(default=(), max_length=64)
    """What the job's planner has been told that no node has."""
    beyond_window: Count | None = None
    """An earlier attempt did not fit a window of so many tokens (0: of unknown size): only a larger one will do."""
    input: InputRef | None = None
    """Messages, prompt, texts, format and tools lie there: the worker fetches them."""
