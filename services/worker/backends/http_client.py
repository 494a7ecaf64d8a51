"""Calls over HTTP/1.1 to one endpoint: kept-alive connections, one call each at a time; a body is given as it arrives.

A model call needs no redirects, cookies, proxies or packed bodies; without them it takes half of aiohttp's CPU (decision 0027). Parsed
by httptools; what arrives unread is bounded, and a call that is left closes its connection at once.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import httptools

MAX_HEAD_BYTES = 64 * 1024
UNREAD_BYTES = 256 * 1024
"""Of a body: beyond that the endpoint waits until it is read."""


class CannotConnect(Exception):
    """The endpoint takes no connection."""


class NoAnswer(Exception):
    """The connection ended before an answer began."""


class BrokenAnswer(Exception):
    """The answer ended early, or is no HTTP."""


class HttpAnswer(asyncio.Protocol):
    """One connection, and the answer that it gives: `status` and `headers` (lower-case names) once `begun`, then the body in parts."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.begun = self.at_end = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._parts: list[bytes] = []
        self._unread = self._head_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._paused = self._kept = False
        self._error: Exception | None = None

    @property
    def reusable(self) -> bool:
        """Whether another call may follow on it."""
        return self.at_end and self._kept and self._transport is not None

    async def ask(self, request: bytes) -> None:
        """Send this and wait for the head of the answer. Raises NoAnswer, BrokenAnswer."""
        if self._transport is None:
            raise NoAnswer
        self.status, self.headers, self.begun, self.at_end = 0, {}, False, False
        self._head_bytes, self._parser = 0, httptools.HttpResponseParser(self)
        self._drop_unread()
        self._transport.write(request)
        while not self.begun:
            await self._more()

    async def read(self) -> bytes:
        """What has arrived of the body, at least a byte; nothing at its end. Raises BrokenAnswer."""
        while not self._parts and not self.at_end:
            await self._more()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._drop_unread()
        return data

    def abort(self) -> None:
        """Close at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _drop_unread(self) -> None:
        self._parts.clear()
        self._unread = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def data_received(self, data: bytes) -> None:
        try:
            if self._parser is None or self.at_end:
                raise httptools.HttpParserError("nobody has asked for it")
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.at_end:  # what comes behind an answer spoils the connection only
                self._error = BrokenAnswer()
            self._kept = False
            self.abort()
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.begun and exc is None and "content-length" not in self.headers and "transfer-encoding" not in self.headers:
            self.at_end = True  # such a body ends with its connection
        elif self._error is None:
            self._error = BrokenAnswer() if self.begun else NoAnswer()
        self._wake()

    # httptools' calls

    def on_message_begin(self) -> None:
        if self.at_end:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head of the answer is too long")
        if not self.begun:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.begun = self.status >= 200
        if not self.begun:  # an interim answer: the real one follows
            self.headers.clear()
        self._wake()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._unread += len(data)
        if self._unread > UNREAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        self.at_end, self._kept = self.begun, self._parser.should_keep_alive()
        self._wake()


class Connections:
    """To one base address, at most so many at once; `keep_seconds`: an idle one is used again for so long."""

    def __init__(self, url: str, *, most: int, connect_seconds: float, keep_seconds: float, headers: Mapping[str, str]) -> None:
        """Raises ValueError for a header that cannot be written."""
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        named = {"Host": parts.netloc.rpartition("@")[2], "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            named.setdefault("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
        self._fixed = b"".join(_line(name, value) for name, value in named.items())
        self._connect_seconds, self._keep_seconds = connect_seconds, keep_seconds
        self._free = asyncio.Semaphore(most)
        self._idle: list[HttpAnswer] = []
        self._context: ssl.SSLContext | None = None

    async def begin(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """The answer, begun; `finish` it, whatever happens. Raises CannotConnect, NoAnswer, BrokenAnswer."""
        lines = b"".join(_line(name, value) for name, value in (headers or {}).items())
        if body is not None:
            lines += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        request = b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method.encode(), (self._path + path).encode(), self._fixed, lines, body or b"")
        await self._free.acquire()
        answer = None
        try:
            while (answer := self._freshest()) is not None:
                try:
                    await answer.ask(request)
                except NoAnswer:
                    continue  # the endpoint closed it a moment ago
                return answer
            answer = await self._connected()
            await answer.ask(request)
        except BaseException:
            if answer is not None:
                answer.abort()
            self._free.release()
            raise
        return answer

    def finish(self, answer: HttpAnswer) -> None:
        """The call is over: keep its connection where another may follow, else close it."""
        if answer.reusable:
            answer.idle_since = asyncio.get_running_loop().time()
            self._idle.append(answer)
        else:
            answer.abort()
        self._free.release()

    def close(self) -> None:
        """Close what is idle; calls under way close theirs. Idempotent."""
        while self._idle:
            self._idle.pop().abort()

    def _freshest(self) -> HttpAnswer | None:
        """The connection that was used last, if it may be used again."""
        while self._idle:
            answer = self._idle.pop()
            if answer.reusable and asyncio.get_running_loop().time() - answer.idle_since < self._keep_seconds:
                return answer
            answer.abort()
        return None

    async def _connected(self) -> HttpAnswer:
        if self._tls and self._context is None:
            self._context = ssl.create_default_context()
        try:
            async with asyncio.timeout(self._connect_seconds):
                loop = asyncio.get_running_loop()
                _, answer = await loop.create_connection(HttpAnswer, self._host, self._port, ssl=self._context)
        except (OSError, UnicodeError) as error:  # what is no host's name is a UnicodeError
            raise CannotConnect from error
        return answer


def _line(name: str, value: str) -> bytes:
    """A header's. Raises ValueError: a value could else say another header."""
    if not (name + value).isprintable():
        raise ValueError(f"the header {name!r} has a value that cannot be written")
    return f"{name}: {value}\r\n".encode()
