"""Packed request bodies (RFC 9110, 8.4): gzip and deflate, unpacked within a bound. Pure.

Bounds on what a caller may send, checked before anything is parsed.
"""

from __future__ import annotations

import zlib

from services.ingress.problems import Problem, Refused
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


_AUTOMATIC, _RAW = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
"""zlib's window bits: gzip or zlib by the first bytes; deflate without a head, as some clients send it."""
_ZLIB_METHOD = 8
_MOST_MEMBERS = 4_096
"""Of one body: tools that pack in parallel make one of each 64 kB; empty ones cost time and say nothing."""
_PIECE_BYTES = 16 * 1024
"""What lies behind a member's end is copied each time, so little is given at once."""


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before it was packed. Raises Refused (415, 400); TooLarge as soon as more than `limit` bytes have come out."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        message = f"content-encoding {name[:32]!r} is not read here: send gzip, deflate, or the body as it is"
        raise Refused(Problem(415, "unsupported_encoding", message, "content-encoding", headers=((b"accept-encoding", b"gzip, deflate"),)))
    bits = _RAW if name == "deflate" and (not body or body[0] & 15 != _ZLIB_METHOD) else _AUTOMATIC
    parts: list[bytes] = []
    packed, at, size, members = memoryview(body), 0, 0, 0
    while at < len(packed):
        member, members = zlib.decompressobj(bits), members + 1
        while not member.eof:
            piece = packed[at : at + _PIECE_BYTES]
            if not piece or members > _MOST_MEMBERS:
                raise _broken(name)
            try:
                parts.append(member.decompress(piece, limit + 1 - size))
            except zlib.error:
                raise _broken(name) from None
            size += len(parts[-1])
            check_body_size(size, limit)
            at += len(piece) - len(member.unused_data)
    return b"".join(parts)


def _broken(name: str) -> Refused:
    return Refused(Problem(400, "invalid_encoding", f"the body is not whole {name}", "content-encoding"))
