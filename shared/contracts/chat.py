"""The parts of a model call that jobs, steps and answers share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from shared.contracts.base import Contract, Image, JsonObject, Label, ModelName, NodeId, Seconds, Text
from shared.contracts.blob import BlobRef
from shared.contracts.usage import Usage
from shared.contracts.verdict import CritiqueVerdict, Flagged

MOST_CALLS = 128
MOST_TOOLS = 128
"""Tool calls of one answer or message."""
LEAST_LOGPROB = -1_000.0
"""Of one token: what is less likely counts as this."""
Vector = Annotated[tuple[Annotated[float, Field(ge=-1e38, le=1e38)], ...], Field(max_length=65_536)]
"""An embedding, of 32-bit floats."""


class Operation(StrEnum):
    """What a worker asks of a model; or that it calls a tool, whose name stands in the model's place; what a critic is asked; or
    what is done to the model itself.
    """

    CHAT = "chat"
    GENERATE = "generate"
    EMBED = "embed"
    TOOL = "tool"
    CRITIQUE = "critique"
    MANAGE = "manage"


MODEL_CALLS = frozenset({Operation.CHAT, Operation.GENERATE, Operation.EMBED})
"""What a model endpoint is asked: what comes of the others says nothing of it."""
TOOLS = "tools"
"""The capability of workers that serve tools. No chat model can be asked to be one."""
CRITIQUES = "critiques"
"""The capability of steps that no worker gets: a critic reads them."""


ToolChoice = Literal["auto", "required"]
"""Whether the model may, or must, call one of the tools that it is given. A caller who wants one tool gives that one."""


class ChatMessage(Contract):
    """One turn. `tool_calls` are OpenAI-shaped objects: id, function.name, function.arguments (object or JSON text)."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text = ""
    images: tuple[Image, ...] = Field(default=(), max_length=16)
    tool_calls: tuple[JsonObject, ...] = Field(default=(), max_length=MOST_CALLS)
    tool_call_id: Label | None = None
    tool_name: Label | None = None


class Options(Contract):
    """How the model answers; a worker always sends a temperature. Load-time options belong to a node's model profile, never to a job."""

    model_config = ConfigDict(extra="forbid")

    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    stop: tuple[Label, ...] = Field(default=(), max_length=16)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repeat_penalty: float | None = Field(default=None, ge=0, le=10)
    think: bool | Literal["low", "medium", "high"] | None = None
    """Whether, or how much, a model thinks before it answers; a model that cannot think answers as it does without this word."""


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    BUDGET = "budget"


class Served(Contract):
    """Of an answer that no model was asked for: the cache's. `saved`: what the call would have used, as the one that it comes from did."""

    kind: Literal["exact", "semantic"]
    entry: Label
    similarity: float | None = Field(default=None, ge=-1, le=1)
    """Of a semantic hit's question to this one."""
    age_seconds: Seconds = 0.0
    saved: Usage = Usage()


class Answer(Contract):
    """What a step or a job yields. Of one above the inline bound `text`, `thinking`, `tool_calls` and `embeddings` lie in the blob, as the
    JSON of an Answer; `tutti blobs get` fetches it, and an ingress does for who waits there.
    """

    text: Text = ""
    thinking: Text | None = None
    tool_calls: tuple[JsonObject, ...] = Field(default=(), max_length=MOST_CALLS)
    embeddings: tuple[Vector, ...] = Field(default=(), max_length=4_096)
    finish_reason: FinishReason = FinishReason.STOP
    model: ModelName | None = None
    node: NodeId | None = None
    digest: Label | None = None
    """Of the model's file, where the node's endpoint tells it; so the quantisation."""
    quantisation: Label | None = None
    simulated: bool = False
    mean_logprob: float | None = Field(default=None, ge=LEAST_LOGPROB, le=0.0)
    """Of its tokens as the model wrote them, natural logarithm; only where the step asks for it and the endpoint tells it."""
    blob: BlobRef | None = None
    flagged: tuple[Flagged, ...] = Field(default=(), max_length=256)
    """What its tenant's policies have met in the job; of a step's answer what its worker has redacted. Never in the blob."""
    verdict: CritiqueVerdict | None = None
    """Of a critic; then there is no text."""
    explanation: JsonObject | None = None
    """How the pattern came to a job's answer, for people: votes, scores, what was kept. Never of a model's call, never in the blob."""
    served: Served | None = None
    """It comes from the cache."""
