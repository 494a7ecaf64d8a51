"""A small HTTP/1.1 caller for load: one keep-alive connection, one request at a time. It shares the machine with what it measures,
so it does no more than find the end of an answer and the moment of the first token.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from shared.clock import Clock

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
FIRST_TEXT = re.compile(rb'"content":\s*"[^"]')
"""The first piece of text of a stream, in OpenAI's events and in Ollama's lines."""


@dataclass(frozen=True, slots=True)
class Response:
    """Instants are seconds of the clock that was given."""

    status: int
    body: bytes
    sent_at: float
    first_text_at: float | None
    ended_at: float


class ConnectionLost(Exception):
    """The server closed before the answer was complete."""


class Caller(asyncio.Protocol):
    """One connection to one URL; `call` posts a body and returns the answer. Not for two calls at once."""

    def __init__(self, url: str, clock: Clock) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._head = f"POST {parts.path or '/'} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\ncontent-length: "
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[Response] | None = None
        self._data = bytearray()
        self._sent_at = 0.0
        self._first_at: float | None = None
        self._body_at = 0
        self._length: int | None = None
        self._chunked = False

    async def call(self, body: bytes) -> Response:
        """Post `body` and read the whole answer. Raises ConnectionLost, OSError."""
        if self._transport is None:
            await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)
        assert self._transport is not None
        self._data.clear()
        self._first_at, self._body_at, self._length, self._chunked = None, 0, None, False
        self._done = asyncio.get_running_loop().create_future()
        self._sent_at = self._clock.monotonic()
        self._transport.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        return await self._done

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionLost())

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._body_at and not self._read_head():
            return
        if self._chunked and self._first_at is None and FIRST_TEXT.search(data):
            self._first_at = self._clock.monotonic()
        if self._complete() and self._done is not None and not self._done.done():
            status = int(self._data[9:12])
            body = bytes(self._data[self._body_at :])
            self._done.set_result(Response(status, body, self._sent_at, self._first_at, self._clock.monotonic()))

    def _read_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._data[:end])
        self._body_at = end + 4
        length = _LENGTH.search(head)
        self._length = int(length.group(1)) if length else None
        self._chunked = _CHUNKED.search(head) is not None
        return True

    def _complete(self) -> bool:
        if self._length is not None:
            return len(self._data) - self._body_at >= self._length
        return self._data.endswith(b"0\r\n\r\n")
