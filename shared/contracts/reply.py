"""Replies: chunks while a step streams, the news that an attempt of it broke, and the final. Keyed by correlation; an unknown
correlation is ignored and counted.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from shared.contracts.base import (
    MANY,
    ClaimId,
    Contract,
    Correlation,
    Count,
    JobId,
    JsonObject,
    ModelName,
    Ordinal,
    Partition,
    StepId,
    Text,
    adapter,
)
from shared.contracts.chat import MOST_CALLS
from shared.contracts.result import Result
from shared.contracts.tasks import TaskProgress


class Chunk(Contract):
    """A piece of text of one run of an attempt. `offset` counts characters from the start of the answer.

    `sequence` rises by one; a missing one is completed by the final's full text. Only growing attempts of a stream are accepted.

    A later attempt either continues the text of an earlier one, then its first chunk has `offset` = `continues_from` > 0, or it begins
    anew at 0: then what was received of earlier attempts is void.
    """

    job: JobId
    step: StepId
    attempt: Ordinal
    claim: ClaimId | None = None
    """Whose run of the attempt this is: an attempt may be claimed twice, and two runs must not mix in one answer."""
    sequence: Count
    offset: Count
    text: Text = ""
    thinking: Text | None = None
    tool_calls: tuple[JsonObject, ...] = Field(default=(), max_length=MOST_CALLS)
    tokens: Count | None = None
    """Of the answer's text up to the end of this piece, earlier attempts' included, as the nodes counted them."""
    continues_from: Count = 0
    """Characters of the answer that an earlier attempt has already sent."""
    model: ModelName | None = None
    simulated: bool = False
    progress: tuple[TaskProgress, ...] = Field(default=(), max_length=64)
    """Of a task on a model: how far it is, in order. Such a chunk has no text."""
    correlation: Correlation = b""


class Chunks(Contract):
    """What one worker coalesced for one reader in one interval."""

    type: Literal["chunks"] = "chunks"
    chunks: tuple[Chunk, ...] = Field(max_length=MANY)


class StreamBroken(Contract):
    """An attempt ended in the middle of its stream, and another one is to follow: what has been shown of it?

    Asked of readers with `multiplex` only. The answer is a `StreamPosition` on `outcomes`, partition `home`; from then on the reader
    accepts nothing more of this attempt, so that the next one continues exactly what is seen. Without an answer it begins anew.
    """

    type: Literal["stream_broken"] = "stream_broken"
    job: JobId
    step: StepId
    attempt: Ordinal
    home: Partition
    correlation: Correlation = b""


class Final(Contract):
    """The job's result, for the caller who waits."""

    type: Literal["final"] = "final"
    correlation: Correlation = b""
    result: Result


Reply = Annotated[Chunks | StreamBroken | Final, Field(discriminator="type")]
REPLY: TypeAdapter[Reply] = adapter(Reply)
