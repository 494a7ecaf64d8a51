"""A small HTTP server that answers each path as told, byte for byte, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web


@dataclass
class Reply:
    """`parts` are written one by one; then the body ends, or `hangs`, or the connection is `cut`."""

    parts: tuple[bytes, ...] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    cut: bool = False


@dataclass
class FakeEndpoint:
    url: str = ""
    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    """path, body, headers of every request"""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The client closed the connection of a hanging reply."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.asked.append((request.path, body, dict(request.headers)))
        reply = self.replies.get(request.path, Reply(status=404, parts=(b'{"error":"not found"}',)))
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        await response.prepare(request)
        try:
            for part in reply.parts:
                await response.write(part)
            if reply.hangs:
                await asyncio.Event().wait()
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
            raise
        if reply.cut and request.transport is not None:
            request.transport.abort()
        return response

    def ndjson(self, path: str, *lines: bytes, **more: Any) -> None:
        self.replies[path] = Reply(tuple(line + b"\n" for line in lines), **more)

    def events(self, path: str, *data: bytes, **more: Any) -> None:
        self.replies[path] = Reply(tuple(b"data: " + line + b"\n\n" for line in data), **more)


@asynccontextmanager
async def fake_endpoint() -> AsyncIterator[FakeEndpoint]:
    """Serves on a free port of this machine until the end of the block."""
    fake = FakeEndpoint()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """Each connection is handled by `serve`; the address."""

    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
