"""A client that leaves cancels its job: over real sockets, because an in-process transport cannot leave."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from services.ingress.dialects import served
from shared.clock import SystemClock
from shared.contracts.chat import Operation
from shared.service.bounded import BoundedProtocol
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, until, world

HI: list[dict[str, str]] = [{"role": "user", "content": "hi"}]
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "hi", "model": "tiny:1"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 9, "model": "tiny:1"},
    "/api/chat": {"messages": HI, "model": "tiny:1"},
    "/api/generate": {"prompt": "hi", "model": "tiny:1"},
}
"""What is asked and may be streamed, in each dialect."""


_SERVERS: dict[int, uvicorn.Server] = {}


@asynccontextmanager
async def serving(at: World, **terms: Any) -> AsyncIterator[int]:
    """The application behind the HTTP server that services have, with these of uvicorn's settings; gives the port. The kernel holds little
    of an answer that nobody takes.
    """
    plug = socket.create_server(("127.0.0.1", 0))
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    config = uvicorn.Config(
        at.ingress.asgi(), loop="none", ws="none", lifespan="off", http=BoundedProtocol, access_log=False, log_config=None, **terms
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve(sockets=[plug]))
    await until(lambda: server.started, "the server")
    port = plug.getsockname()[1]
    _SERVERS[port] = server
    try:
        yield port
    finally:
        del _SERVERS[port]
        server.should_exit = True
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await task


def connections(port: int) -> set[Any]:
    """Of the server that listens there, those that are open."""
    return _SERVERS[port].server_state.connections


class Connection:
    """One HTTP/1.1 connection that can be dropped."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def post(cls, port: int, path: str, headers: dict[str, str] | None = None, **body: Any) -> Connection:
        content = json.dumps({**ASKS[path], **body}).encode()
        return await cls.open(port, "POST", path, headers, content)

    @classmethod
    async def open(cls, port: int, method: str, path: str, headers: dict[str, str] | None = None, content: bytes = b"") -> Connection:
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        plug.connect(("127.0.0.1", port))
        connection = cls(*await asyncio.open_connection(sock=plug))
        lines = [f"{method} {path} HTTP/1.1", "host: test", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        connection.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await connection.writer.drain()
        return connection

    async def drop(self, *, hard: bool = False) -> None:
        """Close, politely or with a reset."""
        if hard:
            self.writer.transport.abort()
        else:
            self.writer.close()


async def only_job(at: World) -> str:
    await until(lambda: len(at.planner.jobs) == 1, "the job arrives")
    return next(iter(at.planner.jobs))


def test_every_dialect_is_here() -> None:
    """A new one cannot be forgotten; embeddings are not streamed."""
    assert {dialect.path for dialect in served() if dialect.operation is not Operation.EMBED} == ASKS.keys()


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("hard", [False, True])
async def test_leaving_cancels_the_job(path: str, stream: bool, hard: bool) -> None:
    """Plain or streamed, with a close or a reset, before the first token: the cancel is at the job's home at once."""
    async with world(script=lambda _job: Script(hold=True)) as at, serving(at) as port:
        connection = await Connection.post(port, path, stream=stream)
        job = await only_job(at)
        clock = SystemClock()
        left_at = clock.monotonic()
        await connection.drop(hard=hard)
        await until(lambda: job in at.planner.cancels, "the cancel")
        assert clock.monotonic() - left_at < 1.0
        assert at.planner.cancels[job] == at.planner.jobs[job].home
        await until(lambda: len(at.ingress.door.waiters) == 0, "nobody waits")


@pytest.mark.parametrize("path", ASKS)
async def test_leaving_in_mid_stream_cancels_the_job(path: str) -> None:
    """After the first token as before it."""
    async with world(script=lambda _job: Script(hold=True, chunks=("hello",))) as at, serving(at) as port:
        connection = await Connection.post(port, path, stream=True)
        await asyncio.wait_for(connection.reader.readuntil(b'"hello"'), 5)
        job = await only_job(at)
        await connection.drop()
        await until(lambda: job in at.planner.cancels, "the cancel")


async def test_leaving_what_goes_on_behind_ends_nothing() -> None:
    """A response that is asked for later belongs to nobody's connection."""
    async with world(script=lambda _job: Script(hold=True, chunks=("hello",))) as at, serving(at) as port:
        connection = await Connection.post(port, "/v1/responses", stream=True, background=True)
        await asyncio.wait_for(connection.reader.readuntil(b'"hello"'), 5)
        job = await only_job(at)
        await connection.drop()
        await until(lambda: not len(at.ingress.door.register), "nobody reads")
        await at.planner.release(job)
        await until(lambda: (found := at.ingress.door.journal.status(job)) is not None and found.result is not None, "its end")
        assert not at.planner.cancels


@pytest.mark.parametrize("stream", [False, True])
async def test_a_detached_job_goes_on(stream: bool) -> None:
    """`x-tutti-detach: true`: the client leaves, the job does not end."""
    async with world(script=lambda _job: Script(hold=True)) as at, serving(at) as port:
        connection = await Connection.post(port, "/v1/chat/completions", {"x-tutti-detach": "true"}, stream=stream)
        job = await only_job(at)
        await connection.drop()
        await until(lambda: len(at.ingress.door.waiters) == 0, "nobody waits")
        await at.planner.release(job)
        status: dict[str, Any] = {}

        async def settled() -> bool:
            status.update((await at.client.get(f"/v1/jobs/{job}")).json())
            return bool(status["state"] == "settled")

        for _ in range(200):
            if await settled():
                break
            await SystemClock().sleep(0.005)
        assert status["result"]["status"] == "succeeded"
        assert not at.planner.cancels


async def test_leaving_after_the_answer_cancels_nothing() -> None:
    """Keep-alive connections are closed at some time; that is no cancel."""
    async with world() as at, serving(at) as port:
        connection = await Connection.post(port, "/v1/chat/completions")
        await asyncio.wait_for(connection.reader.readuntil(b"total_tokens"), 5)
        await connection.drop()
        for _ in range(20):
            assert (await at.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})).status_code == 200
        assert not at.planner.cancels


async def test_a_client_that_does_not_read_holds_back_only_itself() -> None:
    """Its socket fills up; others are answered; when it reads again it gets everything."""
    text = "x" * 150_000
    scripts = {"slow": Script(text=text, chunks=tuple(text[at : at + 1_000] for at in range(0, len(text), 1_000)))}

    def script(job: Any) -> Script:
        return scripts.get(job.messages[0].content, Script())

    async with world(script=script) as at, serving(at) as port:
        slow = await Connection.post(port, "/v1/chat/completions", stream=True, messages=[{"role": "user", "content": "slow"}])
        await only_job(at)
        assert (await at.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})).status_code == 200
        received = b""
        while b"[DONE]" not in received:
            received += await asyncio.wait_for(slow.reader.read(65_536), 10)
        assert received.count(b"x") >= len(text)
        await slow.drop()


async def test_a_client_that_never_reads_is_cut_off() -> None:
    """It holds no place for longer than its deadline and a bounded time."""
    text = "\N{MUSICAL KEYBOARD}" * 3_000
    script = Script(hold=True, chunks=(text,) * 600)
    settings = {"stuck_seconds": 0.2, "deadline_grace_seconds": 0.0}
    async with world(script=lambda _job: script, settings=settings) as at, serving(at) as port:
        connection = await Connection.post(port, "/v1/chat/completions", {"x-tutti-deadline-seconds": "1"}, stream=True)
        await only_job(at)
        await until(lambda: len(at.ingress.door.waiters) == 0, "the place is free again", 20)
        await connection.drop(hard=True)
