"""Replies: chunks while a step streams, and the final. Keyed by correlation; an unknown correlation is ignored and counted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter

from shared.contracts.base import Contract, JobId, StepId, adapter
from shared.contracts.result import Result


class Chunk(Contract):
    """A piece of text of one attempt. `offset` counts characters from the start of the answer.

    `sequence` rises by one; a missing one is completed by the final's full text. Only growing attempts of a stream are accepted.
    """

    job: JobId
    step: StepId
    attempt: PositiveInt
    sequence: NonNegativeInt
    offset: NonNegativeInt
    text: str = ""
    thinking: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    continues_from: NonNegativeInt = 0
    """Characters of the answer that an earlier attempt has already sent."""
    model: str | None = None
    simulated: bool = False
    correlation: bytes = b""


class Chunks(Contract):
    """What one worker coalesced for one reader in one interval."""

    type: Literal["chunks"] = "chunks"
    chunks: tuple[Chunk, ...]


class Final(Contract):
    """The job's result, for the caller who waits."""

    type: Literal["final"] = "final"
    correlation: bytes = b""
    result: Result


Reply = Annotated[Chunks | Final, Field(discriminator="type")]
REPLY: TypeAdapter[Reply] = adapter(Reply)
