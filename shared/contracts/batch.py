"""Batches: many jobs of a tenant that are asked for at once. A batch lies at one home, its *lines* are jobs anywhere.

Its owner (the home of tenant and name) sends a bounded number of lines ahead and is told of each end by the line's own home, over
`outcomes` (model: `tests/model/test_batches.py`). Bodies lie in blobs: what is asked in blocks that an index names, what came of it in
blocks that each name the one before. So an event is as large for fifty thousand lines as for one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from shared.contracts.base import (
    Contract,
    Count,
    EpochSeconds,
    JsonValue,
    Label,
    Offset,
    PositiveSeconds,
    PublicId,
    Seconds,
    Sentence,
    Tenant,
)
from shared.contracts.blob import BlobRef
from shared.contracts.result import Result

MOST_LINES = 50_000
MOST_OPEN = 1_024
"""Lines of one batch that are sent and have not ended."""
CustomId = Annotated[str, StringConstraints(min_length=1, max_length=512)]
LineNumber = Annotated[int, Field(ge=0, lt=MOST_LINES)]
"""Of a line that is a job, counted from 0."""


class BatchLine(Contract):
    """Whose line a job is: its tenant's."""

    batch: PublicId
    number: LineNumber


class BatchError(Contract):
    """Why a batch does not begin, or does not go on."""

    code: Label
    message: Sentence
    line: Count | None = None
    """Of the file, counted from 1."""
    param: Label | None = None


class BatchTerms(Contract):
    """What its caller said, for whoever shows it."""

    endpoint: Label
    input_file: Label
    created_at: EpochSeconds
    window: Label
    metadata: dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]] = Field(
        default_factory=dict, max_length=16
    )


# Bodies in blobs


class BatchIndex(Contract):
    """Where the lines lie. In a blob: the JSON of this."""

    firsts: tuple[LineNumber, ...] = Field(max_length=1_024)
    """Of each block its first line, ascending."""
    blocks: tuple[BlobRef, ...] = Field(max_length=1_024)


class LineRow(Contract):
    """An ended line."""

    line: LineNumber
    result: Result


class RefusedRow(Contract):
    """A line of the file that never was a job. `error`: as its dialect says it."""

    line: Count
    """Of the file, counted from 1."""
    custom_id: CustomId | None = None
    status: Annotated[int, Field(ge=400, le=599)]
    error: JsonValue


# Messages


class _OfBatch(Contract):
    tenant: Tenant
    batch: PublicId


class BatchSubmitted(_OfBatch):
    """Somebody asks for it; its lines lie in blobs. Told again it changes nothing."""

    type: Literal["batch_submitted"] = "batch_submitted"
    terms: BatchTerms
    window_seconds: PositiveSeconds
    index: BlobRef | None = None
    """Absent where no line is a job."""
    lines: Annotated[int, Field(ge=0, le=MOST_LINES)] = 0
    """That are jobs."""
    refused: BlobRef | None = None
    """The newest block of those that are not."""
    refusals: Count = 0
    key: Label | None = None
    """Name of the API key that it came with, for its lines."""
    errors: tuple[BatchError, ...] = Field(default=(), max_length=100)
    """It has failed before it began."""


class BatchCancelled(_OfBatch):
    """Somebody wants no more of it. `forget`: and that nothing of it is kept."""

    type: Literal["batch_cancelled"] = "batch_cancelled"
    forget: bool = False


class LineEnded(_OfBatch):
    """A line's job has ended: owed by it until it is acknowledged."""

    type: Literal["line_ended"] = "line_ended"
    number: LineNumber
    result: Result


OfBatch = BatchSubmitted | BatchCancelled | LineEnded


# The fact


class BatchChanged(Contract):
    """A fact of the owner's home. The newest of a batch is all of it."""

    type: Literal["batch_changed"] = "batch_changed"
    epoch: Offset
    tenant: Tenant
    batch: PublicId
    at: EpochSeconds
    terms: BatchTerms
    window_seconds: PositiveSeconds
    index: BlobRef | None = None
    lines: Annotated[int, Field(ge=0, le=MOST_LINES)] = 0
    refused: BlobRef | None = None
    refusals: Count = 0
    key: Label | None = None
    next: Annotated[int, Field(ge=0, le=MOST_LINES)] = 0
    """First line that was never sent."""
    open: tuple[LineNumber, ...] = Field(default=(), max_length=MOST_OPEN)
    """Sent, or about to be, and not ended."""
    newest: BlobRef | None = None
    """The newest block of ends; each names the one before it."""
    newest_rows: Count = 0
    completed: Count = 0
    failed: Count = 0
    """Lines that ended, well or not; without those that never were jobs."""
    ending: Literal["cancelled", "expired"] | None = None
    """No more lines are sent."""
    ending_at: EpochSeconds | None = None
    over_at: EpochSeconds | None = None
    errors: tuple[BatchError, ...] = Field(default=(), max_length=100)
    age_seconds: Seconds = 0.0
    """Since it was taken in."""
    gone: bool = False

    @property
    def status(self) -> str:
        """As OpenAI's clients know it."""
        if self.errors:
            return "failed"
        if self.over_at is not None:
            return self.ending or "completed"
        return {None: "in_progress", "cancelled": "cancelling", "expired": "finalizing"}[self.ending]

    def to_bytes(self) -> bytes:
        """Without what is as it is by default; the epoch first, as in every event."""
        head = b'{"epoch":%d,"type":"batch_changed",' % self.epoch
        return head + self.encoded(exclude_defaults=True, exclude={"epoch", "type"})[1:]

    def changed_to(self, **fields: Any) -> Self:
        """With these fields, which are valid."""
        return self.model_copy(update=fields)


# Files


class StoredFile(Contract):
    """A tenant's file: an entry of `files`, under tenant and name. `pieces`: its bytes, in order."""

    type: Literal["stored_file"] = "stored_file"
    tenant: Tenant
    name: PublicId
    filename: Annotated[str, StringConstraints(max_length=255)]
    purpose: Label
    size: Count
    """Bytes."""
    created_at: EpochSeconds
    expires_at: EpochSeconds
    """When its blobs may be gone."""
    pieces: tuple[BlobRef, ...] = Field(default=(), max_length=128)
