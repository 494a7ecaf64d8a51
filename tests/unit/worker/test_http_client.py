"""The HTTP client of model calls, against a server of bytes: framing, reuse, bounds, and what ends a connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.backends.http_client import (
    MAX_HEAD_BYTES,
    UNREAD_BYTES,
    BrokenAnswer,
    CannotConnect,
    Connections,
    HttpAnswer,
    NoAnswer,
)
from shared.clock import SystemClock
from tests.unit.worker.fake_endpoint import Serve, serving

_CLOCK = SystemClock()


def connections(url: str, most: int = 4, **headers: str) -> Connections:
    return Connections(url, most=most, connect_seconds=5.0, keep_seconds=4.0, headers=headers)


def always(*parts: bytes, ends: bool = False) -> Serve:
    """Answer each request with these parts; then perhaps the connection ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await _CLOCK.sleep(0)
            if ends:
                return

    return serve


async def body_of(answering: HttpAnswer) -> bytes:
    body = b""
    while data := await answering.read():
        body += data
    return body


async def get(calls: Connections) -> tuple[int, bytes]:
    answering = await calls.begin("GET", "/x")
    try:
        return answering.status, await body_of(answering)
    finally:
        calls.finish(answering)


ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n", False),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\nhello", True),
    "version 1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", True),
    "interim first": (b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
    "closes": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", True),
}


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=12)
@given(cuts=st.lists(st.integers(0, 120), max_size=6))
def test_however_an_answer_is_framed_and_cut_it_is_read_whole(name: str, cuts: list[int]) -> None:
    data, ends = ANSWERS[name]
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})

    async def main() -> None:
        parts = [data[a:b] for a, b in pairwise(at)]
        async with serving(always(*parts, ends=ends)) as url:
            calls = connections(url)
            assert [await get(calls) for _ in range(2)] == [(200, b"hello")] * 2
            calls.close()

    asyncio.run(main())


async def test_a_connection_is_used_again_and_no_more_are_open_than_may_be() -> None:
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await always(ANSWERS["length"][0])(reader, writer)

    async with serving(serve) as url:
        calls = connections(url, most=2)
        await get(calls)
        await get(calls)
        assert opened == 1
        assert await asyncio.gather(*(get(calls) for _ in range(8))) == [(200, b"hello")] * 8
        assert opened == 2
        calls.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", NoAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", BrokenAnswer),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", BrokenAnswer),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", BrokenAnswer),
        (b"SSH-2.0-OpenSSH\r\n", BrokenAnswer),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", BrokenAnswer),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n", BrokenAnswer),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * MAX_HEAD_BYTES + b"\r\n", BrokenAnswer),
    ],
)
async def test_what_is_no_whole_answer_is_an_error_and_frees_its_place(answer: bytes, error: type[Exception]) -> None:
    async with serving(always(answer, ends=True)) as url:
        calls = connections(url, most=1)
        for _ in range(2):
            with pytest.raises(error):
                await get(calls)


async def test_what_nobody_reads_waits_at_the_endpoint() -> None:
    """A body of 16 MiB that is not read takes no more memory here than its bound and one read of the socket."""
    sent = 0
    all_sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (16 << 20))
        for _ in range(16):
            writer.write(bytes(1 << 20))
            await writer.drain()
            sent += 1
        all_sent.set()

    async with serving(serve) as url:
        calls = connections(url)
        answering = await calls.begin("GET", "/x")
        for _ in range(2_000):
            await _CLOCK.sleep(0)
        assert answering._unread > UNREAD_BYTES
        assert not all_sent.is_set()
        assert answering._unread < UNREAD_BYTES + (1 << 20)
        assert len(await body_of(answering)) == 16 << 20
        calls.finish(answering)
        calls.close()


async def test_leaving_a_call_closes_its_connection() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with suppress(ConnectionError):
            await reader.read()
        left.set()

    async with serving(serve) as url:
        calls = connections(url, most=1)
        for _ in range(2):
            asked.clear()
            left.clear()
            call = asyncio.create_task(calls.begin("GET", "/x"))
            await asked.wait()
            call.cancel()
            await asyncio.wait_for(left.wait(), 30)


async def test_what_comes_unasked_ends_a_connection() -> None:
    """A late or second answer is not taken for the next call's."""
    async with serving(always(ANSWERS["length"][0] + ANSWERS["length"][0].replace(b"hello", b"wrong"))) as url:
        calls = connections(url)
        assert [await get(calls) for _ in range(3)] == [(200, b"hello")] * 3


async def test_nobody_there_and_no_such_host() -> None:
    for url in ("http://127.0.0.1:9", "http://nowhere.invalid", "http://" + "a" * 70 + ".invalid", "https://127.0.0.1:9"):
        with pytest.raises(CannotConnect):
            await connections(url).begin("GET", "/x")


async def test_the_request_says_what_was_asked_and_no_header_can_say_another() -> None:
    seen = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"{}")
        writer.write(ANSWERS["length"][0])

    async with serving(serve) as url:
        host = url.removeprefix("http://")
        calls = connections(f"http://me:p%40ss@{host}/base/", Other="é")
        calls.finish(await calls.begin("POST", "/api", b"{}", {"traceparent": "00-1"}))
        calls.close()
    head, *lines = seen.decode().split("\r\n")
    assert head == "POST /base/api HTTP/1.1"
    assert {f"Host: {host}", "Authorization: Basic bWU6cEBzcw==", "Other: é", "traceparent: 00-1", "Content-Length: 2"} <= set(lines)
    with pytest.raises(ValueError, match="cannot be written"):
        connections("http://x", Evil="a\r\nb: c")
