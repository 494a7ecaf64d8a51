"""Bounds on what a caller may send, checked before anything is parsed."""

from __future__ import annotations

from shared.contracts.base import INLINE_BYTES, MAX_DEPTH
from shared.errors import TooLarge

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_MAX_BRACKETS = 2 * INLINE_BYTES
_OPENING = frozenset(b"[{")


def check_body_size(size: int, limit: int) -> None:
    """Raises TooLarge when a body has more than `limit` bytes."""
    if size > limit:
        raise TooLarge(f"the body exceeds {limit} bytes")


def check_inline_size(size: int) -> None:
    """Raises TooLarge when a job does not fit inside a record."""
    if size > INLINE_BYTES:
        raise TooLarge(f"the job has {size} bytes; jobs over {INLINE_BYTES} bytes are not supported yet")


def check_depth(body: bytes, limit: int = MAX_DEPTH) -> None:
    """Raises TooLarge when JSON nests deeper than `limit`. Most bodies pass by counting brackets alone."""
    if body.count(b"{") + body.count(b"[") <= limit:
        return
    skeleton = _outside_strings(body).translate(None, _NOT_BRACKETS)
    if len(skeleton) > _MAX_BRACKETS:
        raise TooLarge("the body holds too many arrays and objects")
    depth = 0
    for byte in skeleton:
        depth += 1 if byte in _OPENING else -1
        if depth > limit:
            raise TooLarge(f"the body nests deeper than {limit} levels")


def _outside_strings(body: bytes) -> bytes:
    """JSON without its strings, in linear time: escapes go first, then every quote begins or ends a string."""
    return b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
