"""Bounds on what a caller may send, checked before anything is parsed."""

from __future__ import annotations

from shared.contracts.base import INLINE_BYTES
from shared.errors import TooLarge


def check_body_size(size: int, limit: int) -> None:
    """Raises TooLarge when a body has more than `limit` bytes."""
    if size > limit:
        raise TooLarge(f"the body has more than {limit} bytes, the most that is read here")


def check_inline_size(size: int) -> None:
    """Raises TooLarge when a job does not fit inside a record."""
    if size > INLINE_BYTES:
        raise TooLarge(f"what a record is to hold of the job has {size} bytes; at most {INLINE_BYTES} fit")
