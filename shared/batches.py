"""Blocks of a batch's lines, as they lie in blobs: a line is a JSON text. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from shared.contracts.base import DAY_SECONDS
from shared.contracts.batch import BatchIndex
from shared.contracts.blob import BlobRef
from shared.topics import BLOB_DAYS

KEPT_SECONDS = (BLOB_DAYS - 1) * DAY_SECONDS
"""Of a batch, from its acceptance on, and of its files: a day less than their blobs lie."""
BLOCK_BYTES = 512 * 1024
"""From so many on a block is closed; each is in memory whole where it is written or read."""
BLOCK_ROWS = 1_024


def linked(before: BlobRef | None, rows: Iterable[bytes]) -> bytes:
    """A block of ends, or of refusals: its first line names the block before it."""
    return b"\n".join((b"null" if before is None else before.to_bytes(), *rows))


def unlinked(body: bytes) -> tuple[BlobRef | None, list[bytes]]:
    """The block before this one, and the rows of this one. Raises ValueError."""
    head, *rows = body.split(b"\n")
    return None if head == b"null" else BlobRef.model_validate_json(head), rows


def block_of(index: BatchIndex, number: int) -> tuple[BlobRef, int]:
    """Where this line lies, and the number of that block's first line."""
    at = bisect_right(index.firsts, number) - 1
    return index.blocks[at], index.firsts[at]
