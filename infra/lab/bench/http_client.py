"""A small HTTP/1.1 caller for load: one keep-alive connection, one request at a time. It shares the machine with what it measures,
so it does no more than find the end of an answer and the moment of the first token.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from shared.clock import Clock

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

    async def call(self, body: bytes) -> Response:
        """Post `body` and read the whole answer. Raises ConnectionLost, OSError."""
        if self._transport is None:
            await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)
        assert self._transport is not None
        self._parser, self._body, self._chunked = httptools.HttpResponseParser(self), bytearray(), False
        self._first_at: float | None = None
        self._done = asyncio.get_running_loop().create_future()
        self._sent_at = self._clock.monotonic()
        self._transport.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        return await self._done

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionLost())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._chunked = self._chunked or name.lower() == b"transfer-encoding"

    def on_body(self, data: bytes) -> None:
        self._body += data
        if self._chunked and self._first_at is None and FIRST_TEXT.search(data):
            self._first_at = self._clock.monotonic()

    def on_message_complete(self) -> None:
        if self._done is not None and not self._done.done():
            status, now = self._parser.get_status_code(), self._clock.monotonic()
            self._done.set_result(Response(status, bytes(self._body), self._sent_at, self._first_at, now))
