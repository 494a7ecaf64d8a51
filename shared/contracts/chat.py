"""The parts of a model call that jobs, steps and answers share."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt

from shared.contracts.base import Contract


class Operation(StrEnum):
    """What a worker asks of a model."""

    CHAT = "chat"
    GENERATE = "generate"
    EMBED = "embed"


class ChatMessage(Contract):
    """One turn. `tool_calls` are OpenAI-shaped objects: id, function.name, function.arguments (object or JSON text)."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: tuple[str, ...] = Field(default=(), max_length=16)
    tool_calls: tuple[dict[str, Any], ...] = Field(default=(), max_length=64)
    tool_call_id: str | None = Field(default=None, max_length=128)
    tool_name: str | None = Field(default=None, max_length=128)


class Options(Contract):
    """Sampling options; a worker always sends a temperature. Load-time options belong to a node's model profile, never to a job."""

    model_config = ConfigDict(extra="forbid")

    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: NonNegativeInt | None = None
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    max_tokens: PositiveInt | None = Field(default=None, le=1_000_000)
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repeat_penalty: float | None = Field(default=None, ge=0, le=10)


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    BUDGET = "budget"


class Answer(Contract):
    """What a step or a job yields."""

    text: str = ""
    thinking: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    embeddings: tuple[tuple[float, ...], ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    model: str | None = None
    node: str | None = None
    simulated: bool = False
