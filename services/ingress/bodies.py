"""Bodies: what requests send, bounded where it arrives: each one's bytes and time, and the bytes of all together.

A body counts from its first byte until its job is on its way (or refused), unpacked if it was packed. As of places to wait (`register`), no
tenant has all bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.ingress.encodings import unpack
from services.ingress.exchange import CallHeaders, Receive
from services.ingress.limits import check_body_size
from services.ingress.problems import ClientGone, Problem, Refused
from services.ingress.register import Places
from shared.errors import Overloaded

BODY_SECONDS = 60.0
"""A body that has not arrived by then is given up."""


class _Held:
    """Bytes that one request holds."""

    __slots__ = ("_all", "_size", "_tenant")

    def __init__(self, places: Places, tenant: str) -> None:
        self._all, self._tenant, self._size = places, tenant, 0

    def grow(self, size: int) -> None:
        """It has so many now. Raises Overloaded."""
        more = size - self._size
        if more > 0 and not self._all.has(self._tenant, more):
            raise Overloaded("too many bytes are on their way here", retry_after_seconds=1.0)
        self._all.take(self._tenant, more)
        self._size = size

    def free(self) -> None:
        self._all.give_back(self._tenant, self._size)


class Bodies:
    """One per instance; `size` bounds the bytes of all requests."""

    def __init__(self, size: int) -> None:
        self._places = Places(size)

    @property
    def size(self) -> int:
        """Bytes held now."""
        return self._places.taken

    @asynccontextmanager
    async def read(self, receive: Receive, call: CallHeaders, tenant: str, limit: int) -> AsyncIterator[bytes]:
        """The whole body, unpacked; its bytes count until the block ends.

        Raises TooLarge beyond `limit` bytes, before reading when the length is announced; Overloaded; ClientGone; Refused: 408 when it does
        not arrive in time, 415 and 400 when it cannot be unpacked.
        """
        check_body_size(call.content_length or 0, limit)
        held = _Held(self._places, tenant)
        try:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _read(receive, held, limit)
            except TimeoutError:
                raise Refused(Problem(408, "body_too_slow", f"the body did not arrive within {BODY_SECONDS:g} s")) from None
            if call.content_encoding is not None:
                body = unpack(body, call.content_encoding, limit)
                held.grow(len(body))
            yield body
        finally:
            held.free()


async def _read(receive: Receive, held: _Held, limit: int) -> bytes:
    message = await receive()
    body = bytearray()
    while message["type"] != "http.disconnect":
        piece: bytes = message.get("body", b"")
        check_body_size(len(body) + len(piece), limit)
        held.grow(len(body) + len(piece))
        if not message.get("more_body", False):
            return bytes(body) + piece if body else piece
        body += piece
        message = await receive()
    raise ClientGone
