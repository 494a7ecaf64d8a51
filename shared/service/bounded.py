"""An HTTP protocol for uvicorn that bounds what it does not: a request's head in bytes and time, requests that come before the one ahead of
them is answered, what still comes of a body after its answer, clients that take nothing, and connections altogether.

The parser keeps a head until it is whole, however long it is and takes; chunks' extensions and trailers too. What is refused here never
reaches an application. Bodies are the application's, as long as it has not answered: of those at most a few reads lie here.

Besides, it writes a response's head and body with one system call. uvicorn writes them apart, and each write wakes the client; on a busy
machine the second wake-up costs more than making the response. What is written in one turn of the event loop is joined and goes out at its
end; order and flow control stay uvicorn's.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


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
        """Write what is held, then close as the transport does; a client that does not take it is not waited for."""
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(TAKEN_SECONDS, self._transport.abort)

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _CorkedProtocol(HttpToolsProtocol):
    """uvicorn's own, on a corked transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport, asyncio.get_running_loop())))


HEAD_BYTES = 32 * 1024
"""Request line and headers; also what surrounds the body's bytes. (As nginx has it.)"""
HEADER_BYTES = 32
"""That each header counts besides its own bytes, as in HTTP/2: an empty one takes memory, too."""
HEAD_SECONDS = 30.0
PIPELINED = 16
"""Requests that may lie behind the one that is being answered. Hardly a client sends a second one; its next ones would all lie here."""
LINGER_SECONDS = 5.0
"""So long is read and dropped what a client still sends of a body that is answered: hung up on at once, he might not see the answer."""
TAKEN_SECONDS = 60.0
"""Who leaves more than what a transport holds untaken for so long is gone: 1 kB a second is enough to stay."""
CONNECTIONS = 20_000
"""About 10 kB each. Fewer where fewer files may be open: `most_connections`."""
_FILES_OF_OWN = 256
"""Of the process itself: brokers, stores, nodes."""
_FRAMING = 9
"""Bytes around one byte of a body, at most: its chunk's size and two ends of line."""
_OFFER = frozenset({b"upgrade", b"http2-settings", b"connection"})
"""Headers of a client that would rather speak something else."""


def most_connections() -> int:
    """So many that the process can still open files of its own."""
    try:
        import resource
    except ImportError:  # Windows
        return CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if files == resource.RLIM_INFINITY else min(CONNECTIONS, max(files - _FILES_OF_OWN, files // 2))


class _Unserved(Exception):
    """Ends the parser's turn: the head is too large, too many requests lie here, or a tunnel is asked for."""


class BoundedProtocol(_CorkedProtocol):
    """uvicorn's own, within bounds."""

    most = most_connections()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._whole = False
        """The head of the current request is there."""
        self._bare = 0
        """Bytes of the current request that were no body."""
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        """Until which a head, or the rest of a body that is answered, may come."""
        self._taking: asyncio.TimerHandle | None = None
        """Until which the client must take something."""
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the newest one."""
        self._offered = False
        """The current head is that of a client who would rather speak something else: it is read again without that."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self.transport.abort()
        else:
            self._expect_head(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_timer()
        self.resume_writing()
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bare += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("this is no HTTP that is spoken here")
            return
        if self._bare > HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()
        elif not self._whole or self._answered:
            self._expect_head(HEAD_SECONDS)

    def _feed(self, data: bytes) -> None:
        """An offer to speak something else (h2c, by many clients' default) is passed over, as HTTP allows; the parser would pass over the
        body that comes with it.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                kept = [name + b": " + value + b"\r\n" for name, value in self.headers if name not in _OFFER]
                line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
                data = b"".join((line, *kept, b"\r\n", data[upgrade.args[0] :]))
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                return

    @property
    def _answered(self) -> bool:
        """Nothing is asked now."""
        return self._running is not None and self._running.response_complete and not self.pipeline

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._whole, self._bare, self._head_bytes = False, 0, 0

    def on_headers_complete(self) -> None:
        self._head_bytes = len(self.url) + sum([len(name) + len(value) + HEADER_BYTES for name, value in self.headers])
        if self._head_bytes > HEAD_BYTES or len(self.pipeline) >= PIPELINED or self.parser.get_method() == b"CONNECT":
            raise _Unserved
        self._offered = self.parser.should_upgrade()
        if self._offered:
            return
        self._whole = True
        self._unset_timer()
        super().on_headers_complete()
        if self.pipeline:
            self.flow.resume_reading()  # else nobody would notice that this client is gone

    def on_body(self, body: bytes) -> None:
        self._bare = max(0, self._bare - _FRAMING * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offered:
            return
        super().on_message_complete()
        self.cycle.more_body = False
        if self._answered:
            self._unset_timer()

    def on_response_complete(self) -> None:
        rest = self.cycle.more_body and not self.pipeline
        super().on_response_complete()
        if rest and not self.transport.is_closing():
            self._expect_head(LINGER_SECONDS)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(TAKEN_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def send_400_response(self, msg: str) -> None:
        """Of what is no HTTP, or has too long a head; as JSON, like every other answer."""
        if self._head_bytes > HEAD_BYTES:
            self._refuse_head()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "invalid_http", msg)

    def _expect_head(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._on_late)

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
        """And hang up. In the midst of another request's answer nothing is written."""
        running = self._running
        amid = running is not None and not running.response_complete
        if not amid or (self._whole and running is self.cycle and not self.cycle.response_started):
            body = to_json({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
