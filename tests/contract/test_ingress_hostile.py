"""Clients that mean harm, or are broken, on real sockets: each is answered with what is wrong, or hung up on, in bounded time and memory,
and meanwhile others are served as ever.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from services.ingress.http import bodies
from services.ingress.http.encodings import unpack
from services.ingress.problems import Refused
from shared.clock import SystemClock
from shared.contracts.job import Job
from shared.service import bounded
from tests.contract.test_ingress_disconnect import ASKS, Connection, connections, serving
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, until, world

CHAT = "/v1/chat/completions"
SECONDS = 8.0
"""In which whoever is not answered is hung up on here; with the product's own bounds it is a minute."""
GOOD = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
ENDLESS = "without end"
CLOSED = 0
"""Hung up on, without an answer."""


class Kind(NamedTuple):
    """`sends`: in pieces, with so many seconds between them; `answers`: what the first answer may be."""

    sends: list[bytes]
    answers: set[int]
    pause: float = 0.0


def post(body: bytes, *headers: str, path: str = CHAT, length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: t", f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def raw(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def framed(*lines: str, body: bytes) -> bytes:
    return raw(f"POST {CHAT} HTTP/1.1", "host: t", *lines, body=body)


CHUNKED = "transfer-encoding: chunked"
UPGRADE = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")
GET = b"GET /v1/models HTTP/1.1\r\nhost: t\r\n\r\n"
KINDS: dict[str, Kind] = {
    "says nothing": Kind([b""], {CLOSED}),
    "half a request line": Kind([b"POST /v1/ch"], {CLOSED}),
    "half a head": Kind([f"POST {CHAT} HTTP/1.1\r\nhost: t\r\ncontent-le".encode()], {CLOSED}),
    "half a body": Kind([post(GOOD[:9], length=len(GOOD))], {408}),
    "a head, byte by byte": Kind([bytes([byte]) for byte in raw(f"GET /?{'x' * 300} HTTP/1.1")], {CLOSED}, 0.05),
    "a body, byte by byte": Kind([post(b"", length=400), *[b" "] * 400], {408}, 0.02),
    "a body behind its answer, byte by byte": Kind([post(b"", path="/v1/models", length=400), *[b" "] * 400], {405}, 0.02),
    "ends of lines without end": Kind([GET, *[b"\r\n"] * 400], {200}, 0.02),
    "a body where none is read": Kind([raw("GET /v1/models HTTP/1.1", "host: t", "content-length: 100000000", body=b"x")], {200}),
    "a great many headers": Kind([raw("GET /v1/models HTTP/1.1", *["a:"] * 20_000)], {431, CLOSED}),
    "a long header": Kind([raw("GET /v1/models HTTP/1.1", "a: " + "x" * 40_000)], {431, CLOSED}),
    "headers without end": Kind([b"GET /v1/models HTTP/1.1\r\n", *[b"a: b\r\n" * 500] * 200], {431, CLOSED}),
    "a long path": Kind([raw(f"GET /{'x' * 40_000} HTTP/1.1")], {431, CLOSED}),
    "a long query": Kind([raw(f"POST /v1/jobs?wait={'9' * 30_000} HTTP/1.1", "content-length: 0")], {400}),
    "a long key": Kind([post(GOOD, "authorization: Bearer " + "x" * 30_000)], {200}),
    "a long idempotency key": Kind([post(GOOD, "idempotency-key: " + "x" * 300)], {400}),
    "a long id": Kind([post(b'{"prompt":"x","id":"' + b"x" * 200 + b'"}', path="/v1/jobs")], {400}),
    "a body that says it is large": Kind([post(b"", length=10**9)], {413}),
    "a large body": Kind([post(b"", length=9_000_000), *[b" " * 100_000] * 90], {413, 408}),
    "a chunked body without end": Kind([framed(CHUNKED, body=b""), *[b"186a0\r\n" + b" " * 100_000 + b"\r\n"] * 100], {413, 408}),
    "a packed bomb": Kind([post(gzip.compress(b" " * 10_000_000), "content-encoding: gzip")], {413}),
    "a packed body of nothing, many times": Kind([post(gzip.compress(b"") * 20_000, "content-encoding: gzip")], {400}),
    "requests that wait for no answer": Kind([GET * 2_000] * 20, {200, CLOSED}),
    "a length that is none": Kind([framed("content-length: x", body=GOOD)], {400}),
    "a negative length": Kind([framed("content-length: -1", body=GOOD)], {400}),
    "a length beyond all bounds": Kind([framed("content-length: " + "9" * 30, body=GOOD)], {400}),
    "two lengths": Kind([framed("content-length: 2", f"content-length: {len(GOOD)}", body=GOOD)], {400}),
    "a length, and chunks": Kind([framed("content-length: 2", CHUNKED, body=b"0\r\n\r\n")], {400}),
    "chunks that are none": Kind([framed(CHUNKED, body=b"zz\r\nx\r\n")], {400}),
    "a chunk beyond all bounds": Kind([framed(CHUNKED, body=b"f" * 30 + b"\r\nx")], {400}),
    "another coding than chunks": Kind([framed("transfer-encoding: gzip", body=GOOD)], {400}),
    "a head that goes on in its next line": Kind([raw("GET /v1/models HTTP/1.1", "a: b", " c")], {400, 200}),
    "a name with a space": Kind([raw("GET /v1/models HTTP/1.1", "a b: c")], {400}),
    "a zero byte in a header": Kind([raw("GET /v1/models HTTP/1.1", "a: \x00")], {400}),
    "a path that is no text": Kind([raw("GET /v1/models/%ff%fe%00 HTTP/1.1", "host: t")], {404}),
    "a path of bytes": Kind([raw("GET /v1/models/\xff HTTP/1.1", "host: t")], {400}),
    "a key of bytes": Kind([post(GOOD, "authorization: Bearer \xff\xfe".encode().decode("latin-1"))], {200}),
    "a body that is no text": Kind([post(b'{"messages":[{"role":"user","content":"\xff\xfe"}]}')], {400}),
    "a deep body": Kind([post(b"[" * 1_000_000)], {413}),
    "a body of very many values": Kind([post(b'{"messages":[' + b"0," * 2_000_000 + b"0]}")], {413}),
    "a number without end": Kind([post(b'{"temperature":' + b"9" * 1_000_000 + b"}")], {400}),
    "another protocol is offered": Kind([post(GOOD, *UPGRADE)], {200}),
    "another protocol is offered, slowly": Kind([post(GOOD, *UPGRADE)[:-9], GOOD[-9:]], {200}, 0.05),
    "another protocol is offered, in chunks": Kind(
        [framed(CHUNKED, *UPGRADE, body=b"%x\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n\r\n")], {200}
    ),
    "a tunnel": Kind([raw("CONNECT example.com:443 HTTP/1.1", "host: t")], {400}),
    "a tunnel to a path": Kind([raw("CONNECT /v1/models HTTP/1.1", "host: t")], {400}),
    "another protocol": Kind([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], {400}),
    "a handshake of TLS": Kind([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200], {400}),
    "leaves its side at once": Kind([post(GOOD), b"EOF"], {200, CLOSED}),
}


def script(job: Job) -> Script:
    """Words that come without end, or an answer."""
    text = job.messages[0].content if job.messages else job.prompt
    return Script(hold=True, chunks=("x" * 20_000,) * 50) if text == ENDLESS else Script()


@asynccontextmanager
async def besieged(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[World, int]]:
    """An ingress with short bounds of time behind a real server. What all of a hundred clients send is here, on a busy machine, within
    those of heads and bodies: they share one loop with it.
    """
    bounds = (
        (bounded, "HEAD_SECONDS", 4.0),
        (bodies, "BODY_SECONDS", 4.0),
        (bounded, "LINGER_SECONDS", 1.0),
        (bounded, "TAKEN_SECONDS", 1.0),
    )
    for module, name, seconds in bounds:
        monkeypatch.setattr(module, name, seconds)
    settings = {"stuck_seconds": 1.0}
    async with world(script=script, settings=settings) as at, serving(at, timeout_keep_alive=1) as port:
        yield at, port


async def strike(port: int, kind: Kind) -> bytes:
    """Send all of it, whatever is said meanwhile; what was said until somebody hung up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=10**9)

    async def send() -> None:
        for piece in kind.sends:
            if piece == b"EOF":
                writer.write_eof()
                continue
            writer.write(piece)
            await writer.drain()
            await SystemClock().sleep(kind.pause)

    sending = asyncio.create_task(send())
    said = b""
    try:
        while part := await asyncio.wait_for(reader.read(65_536), SECONDS):
            said += part
    except ConnectionError:
        pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()
    return said


async def served(port: int) -> None:
    """Others are, on a connection of their own."""
    connection = await Connection.post(port, CHAT)
    assert b" 200 " in await asyncio.wait_for(connection.reader.readuntil(b"total_tokens"), SECONDS)
    await connection.drop()


def status(said: bytes) -> int:
    return int(said[9:12]) if said else CLOSED


def wrong(kind: Kind, said: bytes) -> bool:
    """It is not what is to be said; an answer of ours is JSON."""
    if status(said) < 400:
        return status(said) not in kind.answers
    head, _, body = said.partition(b"\r\n\r\n")
    length = int(re.findall(rb"content-length: (\d+)", head)[0])
    return status(said) not in kind.answers or not json.loads(body[:length])["error"]["code"]


async def test_whatever_clients_do_is_answered_or_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds at once, each three times: in a bounded time, with nothing left of them, while others are served."""
    async with besieged(monkeypatch) as (at, port):
        striking = {name: [asyncio.create_task(strike(port, kind)) for _ in range(3)] for name, kind in KINDS.items()}
        while not all(task.done() for tasks in striking.values() for task in tasks):
            await served(port)
        said = {name: [task.result() for task in tasks] for name, tasks in striking.items()}
        assert not {name: found[:300] for name, all_said in said.items() for found in all_said if wrong(KINDS[name], found)}
        await served(port)
        await until(lambda: not connections(port), "all are gone", SECONDS)
        await until(lambda: (len(at.ingress.door.register), at.ingress.door.bodies.size) == (0, 0), "nothing is left")


async def test_who_takes_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any answer, in any dialect, streamed or whole: it holds neither a place nor a connection."""
    async with besieged(monkeypatch) as (at, port):
        posts = {path: json.dumps({**body, "stream": True}).replace('"hi"', f'"{ENDLESS}"').encode() for path, body in ASKS.items()}
        job = (await at.client.post("/v1/jobs", json={"prompt": ENDLESS, "stream": True})).json()["id"]
        plugs = [await Connection.open(port, "POST", path, None, content) for path, content in posts.items()]
        plugs += [await Connection.open(port, "GET", f"/v1/jobs/{job}/events"), await Connection.open(port, "GET", "/openapi.json")]
        plugs[-1].writer.write(GET.replace(b"/v1/models", b"/openapi.json") * 9)
        await until(lambda: len(at.ingress.door.register) == len(plugs) - 1, "all are waited for")
        await served(port)
        await until(lambda: not connections(port), "all are gone", 20)
        await until(lambda: not len(at.ingress.door.register), "nobody is waited for")
        for plug in plugs:
            await plug.drop(hard=True)


@pytest.mark.parametrize("path", ASKS)
async def test_requests_behind_a_stream_do_not_hide_that_its_client_is_gone(path: str) -> None:
    """Its job is ended at once, though more was asked on the same connection."""
    async with world(script=lambda _: Script(hold=True, chunks=("hello",))) as at, serving(at) as port:
        connection = await Connection.post(port, path, stream=True)
        await asyncio.wait_for(connection.reader.readuntil(b'"hello"'), SECONDS)
        connection.writer.write(GET * 3)
        await until(lambda: any(len(each.pipeline) == 3 for each in connections(port)), "they lie there")
        job = next(iter(at.planner.jobs))
        await connection.drop()
        await until(lambda: job in at.planner.cancels, "the cancel")
        await until(lambda: not len(at.ingress.door.register), "nobody is waited for")


async def test_a_flood_of_connections_leaves_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many each new one is closed; those that are served go on, and there is room again when the idle ones are late."""
    monkeypatch.setattr(bounded.BoundedProtocol, "most", 50)
    async with besieged(monkeypatch) as (_, port):
        stream = await Connection.post(port, CHAT, stream=True, messages=[{"role": "user", "content": ENDLESS}])
        reading = asyncio.create_task(stream.reader.readexactly(900_000))
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        await until(lambda: len(connections(port)) <= 50, "bounded")
        await asyncio.wait_for(reading, SECONDS)
        await until(lambda: len(connections(port)) == 1, "the idle ones are late", SECONDS)
        await served(port)
        for _, writer in flood:
            writer.transport.abort()
        await stream.drop(hard=True)


async def test_what_lies_here_of_a_client_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it sends without waiting for answers."""
    queued: list[int] = []
    original = bounded.BoundedProtocol.on_message_complete

    def counted(protocol: bounded.BoundedProtocol) -> None:
        original(protocol)
        queued.append(len(protocol.pipeline))

    monkeypatch.setattr(bounded.BoundedProtocol, "on_message_complete", counted)
    async with besieged(monkeypatch) as (_, port):
        await strike(port, KINDS["requests that wait for no answer"])
        assert 0 < max(queued) <= bounded.PIPELINED


def test_packed_bodies_of_nothing_take_no_time() -> None:
    """Eight megabytes of empty members: before, each copied all that lies behind it, which took minutes."""
    clock = SystemClock()
    began = clock.monotonic()
    with pytest.raises(Refused):
        unpack(gzip.compress(b"") * 400_000, "gzip", 8 * 1024 * 1024)
    assert clock.monotonic() - began < 5.0
