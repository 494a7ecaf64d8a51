"""BodyBudget: what requests send, bounded where it arrives: each one's bytes and time, and the bytes of all together; and large answers.

A body counts from its first byte until its job is on its way (or refused), unpacked if it was packed; an answer that was fetched, until its
client has taken it. As of places to wait (`register`), no tenant has all bytes.
"""

from __future__ import annotations

import asyncio

from services.ingress.http.encodings import check_body_size, unpack
from services.ingress.http.exchange import CallHeaders, Receive
from services.ingress.problems import ClientGone
from services.ingress.replies.register import Guest, Places
from shared.errors import Overloaded
from shared.service.known_problems import BODY_SECONDS, too_slow


class BodyBudget:
    """One per instance; `size` bounds the bytes of all requests, and those of all large answers."""

    def __init__(self, size: int) -> None:
        self._most = size
        self._places = Places(size)
        self._answers = Places(size)
        self._held: dict[Guest, int] = {}
        self._freed = asyncio.Event()

    @property
    def size(self) -> int:
        """Bytes held now."""
        return self._places.taken

    @property
    def held(self) -> int:
        """Bytes of answers held now."""
        return self._answers.taken

    async def hold(self, guest: Guest, size: int) -> None:
        """Wait until there is room for an answer of so many bytes, which counts until he is let go.

        He is not refused: most clients would ask for the whole job again.
        """
        size = min(size, self._most)
        while not self._answers.has(guest.tenant, size):
            self._freed.clear()
            await self._freed.wait()
        self._answers.take(guest.tenant, size)
        self._held[guest] = self._held.get(guest, 0) + size

    def let_go(self, guest: Guest) -> None:
        """He has it, or is gone."""
        self._answers.give_back(guest.tenant, self._held.pop(guest, 0))
        self._freed.set()

    def read(self, receive: Receive, call: CallHeaders, tenant: str, limit: int) -> _Body:
        """To be entered: gives the whole body, unpacked; its bytes count until the block ends.

        Raises TooLarge beyond `limit` bytes, before reading when the length is announced; Overloaded; ClientGone; Refused: 408 when it does
        not arrive in time, 415 and 400 when it cannot be unpacked.
        """
        check_body_size(call.content_length or 0, limit)
        return _Body(self._places, receive, call, tenant, limit)


class _Body:
    """One request's."""

    __slots__ = ("_call", "_limit", "_places", "_receive", "_size", "_tenant")

    def __init__(self, places: Places, receive: Receive, call: CallHeaders, tenant: str, limit: int) -> None:
        self._places, self._receive, self._call, self._tenant, self._limit = places, receive, call, tenant, limit
        self._size = 0

    async def __aenter__(self) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._read()
            if self._call.content_encoding is not None:
                body = unpack(body, self._call.content_encoding, self._limit)
                self._grow(len(body))
        except TimeoutError:
            self._free()
            raise too_slow("the body did not arrive", BODY_SECONDS) from None
        except BaseException:
            self._free()
            raise
        return body

    async def __aexit__(self, *_error: object) -> None:
        self._free()

    async def _read(self) -> bytes:
        message = await self._receive()
        body = bytearray()
        while message["type"] != "http.disconnect":
            piece: bytes = message.get("body", b"")
            size = len(body) + len(piece)
            check_body_size(size, self._limit)
            self._grow(size)
            if not message.get("more_body", False):
                return bytes(body) + piece if body else piece
            body += piece
            message = await self._receive()
        raise ClientGone

    def _grow(self, size: int) -> None:
        more = size - self._size
        if more > 0 and not self._places.has(self._tenant, more):
            raise Overloaded("too many bytes are on their way here", retry_after_seconds=1.0)
        self._places.take(self._tenant, more)
        self._size = size

    def _free(self) -> None:
        self._places.give_back(self._tenant, self._size)
