"""One try of a delivery against a real receiver: what it may answer, and where a connection may lead."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from services.ingress.callbacks.allowed import CallbackRules
from services.ingress.callbacks.port import Heard
from services.ingress.callbacks.sending import HttpPost
from services.ingress.settings import CallbackSettings
from shared.clock import SystemClock
from shared.resolvers import NameServer
from tests.unit.worker.fake_endpoint import FakeEndpoint, Reply, fake_endpoint, serving

LOCAL = "127.0.0.0/8"


class Names(AbstractResolver):
    """Each look-up leads to the next address, the last for ever."""

    def __init__(self, *addresses: str) -> None:
        self.left, self.asked = list(addresses), 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        address = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        return None


@pytest.fixture
async def fake() -> AsyncIterator[FakeEndpoint]:
    async with fake_endpoint() as endpoint:
        yield endpoint


async def sent(url: str, resolver: AbstractResolver | None = None, networks: str = LOCAL, **settings: Any) -> Heard:
    chosen = CallbackSettings(http=True, hosts="*", networks=networks, **{"timeout_seconds": 20.0, **settings})
    post = HttpPost(chosen, CallbackRules(chosen, {}), True, resolver)
    try:
        return await post(url, {"webhook-id": "whk_1"}, b'{"a":1}')
    finally:
        await post.close()


async def test_a_receiver_takes_it(fake: FakeEndpoint) -> None:
    fake.replies["/x"] = Reply(status=204)
    assert await sent(f"{fake.url}/x?token=1") == Heard(True)
    [(path, body, headers)] = fake.asked
    assert (path, body, headers["webhook-id"]) == ("/x", {"a": 1}, "whk_1")
    assert "authorization" not in {name.lower() for name in headers}


@pytest.mark.parametrize(
    ("reply", "heard"),
    [
        (Reply(status=500), Heard(False, "status 500")),
        (Reply(status=404), Heard(False, "status 404")),
        (Reply(status=429, headers={"retry-after": "7"}), Heard(False, "status 429", 7.0)),
        (Reply(status=503, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), Heard(False, "status 503")),
        (Reply(status=503, headers={"retry-after": "-1"}), Heard(False, "status 503")),
        (Reply(status=410), Heard(False, "status 410", gone=True)),
        (Reply(status=302, headers={"location": "/other"}), Heard(False, "status 302")),
        (Reply(status=308, headers={"location": "http://169.254.169.254/"}), Heard(False, "status 308")),
    ],
)
async def test_what_a_receiver_may_say(fake: FakeEndpoint, reply: Reply, heard: Heard) -> None:
    fake.replies["/x"] = reply
    assert await sent(f"{fake.url}/x") == heard
    assert len(fake.asked) == 1, "a redirect is not followed"


async def test_a_slow_receiver_is_given_up(fake: FakeEndpoint) -> None:
    fake.replies["/x"] = Reply((b"x",), hangs=True)
    assert await sent(f"{fake.url}/x", timeout_seconds=0.2) in (Heard(True), Heard(False, "no answer within 0.2 s"))
    async with serving(_silent) as url:
        assert await sent(url, timeout_seconds=0.2) == Heard(False, "no answer within 0.2 s")


async def test_a_long_answer_is_not_read(fake: FakeEndpoint) -> None:
    fake.replies["/x"] = Reply((b"x" * 65_536,) * 400, headers={"content-type": "text/plain"})
    assert await sent(f"{fake.url}/x") == Heard(True)


async def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "no connection" in (await sent(f"http://127.0.0.1:{port}/")).why


async def _silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"\x00\xff no HTTP \r\n" * 10)
    await writer.drain()
    writer.close()


async def _headers_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("serve", [_cut, _garbage, _headers_without_end])
async def test_exchanges_that_break(serve: Any) -> None:
    async with serving(serve) as url:
        heard = await sent(url)
        assert not heard.taken
        assert heard.why
        secure = await sent(url.replace("http://", "https://"))
        assert (
            secure.why in ("no TLS connection", "no connection, or its name leads to no address that is allowed")
            or "broke off" in secure.why
        )


async def test_a_name_that_leads_inside_is_not_followed(fake: FakeEndpoint) -> None:
    port = fake.url.rpartition(":")[2]
    inside = f"http://inside.example:{port}/x"
    assert "no address that is allowed" in (await sent(inside, Names("127.0.0.1"), networks="")).why
    assert fake.asked == []
    fake.replies["/x"] = Reply()
    assert (await sent(inside, Names("127.0.0.1"))).taken
    assert fake.asked[0][2]["Host"] == f"inside.example:{port}"


async def test_a_name_that_changes_gains_nothing(fake: FakeEndpoint) -> None:
    """The one look-up that is judged is the one that is connected to."""
    names = Names("93.184.216.34", "127.0.0.1")
    port = fake.url.rpartition(":")[2]
    heard = await sent(f"http://rebinding.example:{port}/x", names, networks="", timeout_seconds=0.3)
    assert not heard.taken
    assert (names.asked, fake.asked) == (1, [])


async def test_a_name_server_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    over = threading.Event()

    def slow(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        over.wait(1.0)
        raise OSError("gone")

    monkeypatch.setattr("shared.resolvers.socket.getaddrinfo", slow)
    names = NameServer()
    waits = [asyncio.create_task(names.resolve("dead.example", 443)) for _ in range(20)]
    await SystemClock().sleep(0.05)
    over.set()
    assert all(isinstance(each, OSError) for each in await asyncio.gather(*waits, return_exceptions=True))
    assert asked == ["dead.example"]
    await names.close()
