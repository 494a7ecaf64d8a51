"""An HTTP protocol for uvicorn that bounds what it does not: the bytes of a request's head, and the time in which it must arrive.

The parser keeps a head until it is whole, however long it is and takes; chunks' extensions and trailers too. What is refused here never
reaches an application. Bodies are the application's: of those at most a few reads lie here.

An HTTP protocol for uvicorn that writes a response's head and body with one system call.

uvicorn writes them apart, and each write wakes the client; on a busy machine the second wake-up costs more than making the response.
What is written in one turn of the event loop is joined and goes out at its end; order and flow control stay uvicorn's.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class CorkedTransport:
    """A transport whose writes of one turn are joined. Everything else is the transport's own."""

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Hold the data until the end of this turn."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """Write what is held, then close as the transport does."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's own, on a corked transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport, asyncio.get_running_loop())))


HEAD_BYTES = 32 * 1024
"""Request line and headers; also what surrounds the body's bytes. (As nginx has it.)"""
HEAD_SECONDS = 30.0
_FRAMING = 9
"""Bytes around one byte of a body, at most: its chunk's size and two ends of line."""


class _HeadTooLarge(Exception):
    """Ends the parser's turn."""


class BoundedProtocol(CorkedProtocol):
    """uvicorn's own, within bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._whole = False
        """The head of the current request is there."""
        self._bare = 0
        """Bytes of the current request that were no body."""
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bare += len(data)
        super().data_received(data)
        if self._bare > HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()
        elif not self._whole:
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._whole, self._bare, self._head_bytes = False, 0, 0

    def on_headers_complete(self) -> None:
        self._head_bytes = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        if self._head_bytes > HEAD_BYTES:
            raise _HeadTooLarge
        self._whole = True
        self._unset_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bare = max(0, self._bare - _FRAMING * len(body))
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Of what is no HTTP, or has too long a head; as JSON, like every other answer."""
        if self._head_bytes > HEAD_BYTES:
            self._refuse_head()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "invalid_http", msg)

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._on_late)

    def _unset_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse_head(self) -> None:
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", f"request line and headers exceed {HEAD_BYTES} bytes")

    def _refuse(self, status: HTTPStatus, code: str, message: str) -> None:
        body = to_json({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
