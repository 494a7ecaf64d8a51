"""The bounded protocol on a real socket: heads within bytes and time, bodies as they come, answers as typed JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from shared.clock import SystemClock
from shared.service import bounded
from shared.service.bounded import HEAD_BYTES, BoundedProtocol

Seen = list[tuple[str, int]]


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[int, Seen]]:
    """An application that reads the whole body; gives the port, and path and body's length of each request."""
    seen: Seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        seen.append((scope["path"], size))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(application, port=0, loop="none", ws="none", lifespan="off", http=BoundedProtocol, log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await SystemClock().sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], seen
    finally:
        server.should_exit = True
        await task


async def answer(port: int, *pieces: bytes) -> bytes:
    """What the server says to these bytes before it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""
    finally:
        writer.close()


LONG = b"x" * (HEAD_BYTES + 1)
POST = b"POST /p HTTP/1.1\r\nhost: t\r\nconnection: close\r\n"


def endless(head: bytes, more: bytes) -> list[bytes]:
    """It never comes to an end."""
    return [head, *[more] * 2_000]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /" + LONG + b" HTTP/1.1\r\n\r\n"],
        [b"GET /?" + LONG + b" HTTP/1.1\r\n\r\n"],
        [b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_BYTES + b"\r\n"],
        [b"GET / HTTP/1.1\r\na: " + LONG + b"\r\n\r\n"],
        endless(b"GET /", b"x" * 1_000),
        endless(b"GET / HTTP/1.1\r\na: ", b"x" * 1_000),
        endless(b"GET / HTTP/1.1\r\n", b"x" * 1_000),
        endless(b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 200),
        endless(POST + b"transfer-encoding: chunked\r\n\r\n1;", b"x" * 1_000),
        endless(POST + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nt: ", b"x" * 1_000),
        endless(POST + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"a: b\r\n" * 200),
    ],
    ids=[
        "path",
        "query",
        "many headers",
        "value",
        "path...",
        "value...",
        "name...",
        "headers...",
        "extension...",
        "trailer...",
        "trailers...",
    ],
)
async def test_what_surrounds_a_body_is_bounded(pieces: list[bytes]) -> None:
    """431 and the connection is closed; the application hears of nothing, or of a body that never ended."""
    async with serving() as (port, seen):
        said = await answer(port, *pieces)
        if said:  # else it was closed while the client still sent
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 431 ")
            assert json.loads(body)["error"]["code"] == "head_too_large"
        assert [path for path, size in seen if size > 1] == []


@pytest.mark.parametrize("chunk", [1, 100, 100_000])
async def test_bodies_are_the_applications(chunk: int) -> None:
    """However they are cut."""
    framed = f"{chunk:x}\r\n".encode() + b"x" * chunk + b"\r\n"
    async with serving() as (port, seen):
        number = 300_000 // chunk
        said = await answer(port, POST + b"transfer-encoding: chunked\r\n\r\n", framed * number, b"0\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 204")
        assert seen == [("/p", chunk * number)]


async def test_requests_of_one_connection_are_counted_apart() -> None:
    """Each has its bytes."""
    header = b"a: " + b"x" * 20_000 + b"\r\n"
    async with serving() as (port, seen):
        request = b"POST /p HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n" + header
        said = await answer(port, *[request + b"\r\nabc"] * 5, request + b"connection: close\r\n\r\nabc")
        assert said.count(b"HTTP/1.1 204") == 6
        assert len(seen) == 6


async def test_what_is_no_http_is_told_as_json() -> None:
    """400."""
    async with serving() as (port, seen):
        said = await answer(port, b"\x16\x03\x01 hello\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 400 ")
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"
        assert seen == []


@pytest.mark.parametrize("begun", [b"", b"GET /", b"GET / HTTP/1.1\r\na: ", b"GET /one HTTP/1.1\r\nhost: t\r\n\r\nGET /2"])
async def test_a_head_that_does_not_come_is_not_waited_for(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is closed; a request before it has been answered."""
    monkeypatch.setattr(bounded, "HEAD_SECONDS", 0.2)
    async with serving() as (port, seen):
        said = await answer(port, begun)
        assert said.count(b"204") == begun.count(b"/one") == len(seen)


async def test_a_slow_body_is_not_a_late_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose time it is the application's to bound."""
    monkeypatch.setattr(bounded, "HEAD_SECONDS", 0.1)
    async with serving() as (port, seen):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"content-length: 2\r\n\r\na")
        await later(0.3, lambda: writer.write(b"b"))
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 204")
        assert seen == [("/p", 2)]
        writer.close()


async def later(seconds: float, act: Callable[[], None]) -> None:
    await SystemClock().sleep(seconds)
    act()
