"""The http tool: pages of allowed addresses and no others, whatever a page, a redirect or a name server says."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from services.worker.backends.base import ModelCallFailed
from services.worker.tools import fetch
from services.worker.tools.calling import ToolCall
from services.worker.tools.declared import HttpTool
from services.worker.tools.fetch import HttpFetch, check_address, readable_text
from shared.addresses import NotAllowed, is_public
from shared.contracts.failure import FailureKind as K
from shared.resolvers import CheckedResolver
from tests.support.ingress_world import until
from tests.unit.worker.fake_endpoint import FakeEndpoint, Reply, fake_endpoint


@pytest.fixture
async def fake() -> AsyncIterator[FakeEndpoint]:
    async with fake_endpoint() as endpoint:
        yield endpoint


class Names(AbstractResolver):
    """Names lead where a test says, each look-up to the next address of its list, the last for ever."""

    def __init__(self, **known: list[str]) -> None:
        self.known, self.asked = known, 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        found = self.known[host.partition(".")[0]]
        address = found.pop(0) if len(found) > 1 else found[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        return None


def get(url: Any, *allow: str, resolver: AbstractResolver | None = None, **terms: Any) -> Any:
    tool = HttpTool(kind="http", allow=allow, **terms)
    return HttpFetch(tool, resolver).call(ToolCall({"url": url}, "s"))


async def failure(calling: Any) -> ModelCallFailed:
    with pytest.raises(ModelCallFailed) as caught:
        await calling
    return caught.value


async def test_a_page_is_read(fake: FakeEndpoint) -> None:
    """As text; of a page of markup what it says."""
    page = b"<html><head><title>T</title></head><body><h1>Fish</h1><script>evil()</script><p>and &amp; <b>chips</b></p></body></html>"
    fake.replies["/a"] = Reply((page,), headers={"content-type": "text/html; charset=utf-8"})
    fake.replies["/b"] = Reply((b'{"a": 1}',), headers={"content-type": "application/json"})
    fake.replies["/c"] = Reply((b"gone",), status=404, headers={"content-type": "text/plain"})
    assert await get(f"{fake.url}/a", fake.url) == "Fish\nand & chips"
    assert await get(f"{fake.url}/b?x=1", fake.url) == '{"a": 1}'
    assert await get(f"{fake.url}/c", fake.url) == "status 404\ngone"
    _, _, headers = fake.asked[0]
    assert not {"Cookie", "Authorization"} & set(headers)


@pytest.mark.parametrize(
    ("allowed", "url", "fits"),
    [
        ("https://a.com/docs/", "https://a.com/docs/x?q=1", True),
        ("https://a.com/docs", "https://a.com/docs", True),
        ("https://a.com/docs", "https://a.com/docs/x", True),
        ("https://a.com/docs", "https://a.com/docs-secret", False),
        ("https://a.com/docs/", "https://a.com/docs/../admin", False),
        ("https://a.com/docs/", "https://a.com/docs/%2e%2e/admin", False),
        ("https://a.com/docs/", "https://a.com/docs/.%2E/admin", False),
        ("https://a.com/docs/", "https://a.com/", False),
        ("https://a.com/", "http://a.com/", False),
        ("https://a.com/", "https://A.COM/x", True),
        ("https://a.com/", "https://a.com:443/x", True),
        ("https://a.com/", "https://a.com:8443/x", False),
        ("https://a.com:8443/", "https://a.com:8443/x", True),
        ("https://a.com/", "https://a.com@evil.com/", False),
        ("https://a.com/", "https://user:pw@a.com/", False),
        ("https://a.com/", "https://a.com.evil.com/", False),
        ("https://a.com/", "https://a.com\\@evil.com/", False),
        ("https://a.com/", "https://evil.com/https://a.com/", False),
        ("https://a.com/", "file:///etc/passwd", False),
        ("https://a.com/", "https://a.com:99999/", False),
        ("https://a.com/", "//a.com/x", False),
        ("https://a.com/", "https://\u0430.com/", False),
        ("https://a.com/", "https://a.com/x y", False),
        ("https://a.com/", "https://a.com/x\r\nHost: b", False),
        ("https://[::1]/", "https://[::1]/x", True),
    ],
)
def test_what_an_allowed_address_covers(allowed: str, url: str, fits: bool) -> None:
    """Its scheme, host and port, and what lies below its path; nothing that servers read in different ways."""
    try:
        check_address(url, (allowed,))
    except NotAllowed:
        assert not fits
    else:
        assert fits


def test_a_bare_host_is_its_https_address() -> None:
    assert HttpTool(kind="http", allow=("a.com",)).allow == ("https://a.com/",)


async def test_what_is_not_allowed_is_told_with_what_is(fake: FakeEndpoint) -> None:
    """And not asked."""
    found = await failure(get("https://evil.com/", fake.url))
    assert (found.kind, fake.url in found.message, fake.asked) == (K.BAD_REQUEST, True, [])
    for wrong in (None, "", 3, "x" * 3_000):
        assert (await failure(get(wrong, fake.url))).kind is K.BAD_REQUEST


async def test_redirects_are_judged_like_addresses(fake: FakeEndpoint) -> None:
    """Each hop; to what is allowed it is followed, so many times."""
    fake.replies["/a"] = Reply(status=302, headers={"location": "/b"})
    fake.replies["/b"] = Reply((b"there",), headers={"content-type": "text/plain"})
    fake.replies["/out"] = Reply(status=302, headers={"location": "http://169.254.169.254/latest/meta-data"})
    fake.replies["/round"] = Reply(status=307, headers={"location": "/round"})
    assert await get(f"{fake.url}/a", fake.url) == "there"
    assert "not allowed" in (await failure(get(f"{fake.url}/out", fake.url))).message
    assert "on and on" in (await failure(get(f"{fake.url}/round", fake.url))).message
    assert [path for path, _, _ in fake.asked].count("/round") == fetch.MOST_HOPS


async def test_a_name_that_leads_to_this_network_is_not_followed(fake: FakeEndpoint) -> None:
    """Unless its operator says so of the tool."""
    fake.replies["/a"] = Reply((b"in",), headers={"content-type": "text/plain"})
    port = fake.url.rpartition(":")[2]
    allowed = f"http://inside.example:{port}/"
    found = await failure(get(f"{allowed}a", allowed, resolver=Names(inside=["127.0.0.1"])))
    assert (found.kind, fake.asked) == (K.NODE_UNREACHABLE, [])
    assert await get(f"{allowed}a", allowed, resolver=Names(inside=["127.0.0.1"]), private_addresses=True) == "in"


async def test_a_name_that_changes_gains_nothing(fake: FakeEndpoint) -> None:
    """What is judged is what is connected to: each connection looks the name up once, and uses that."""
    names = Names(rebinding=["93.184.216.34", "127.0.0.1"])
    resolver = CheckedResolver(names, is_public)
    [kept] = await resolver.resolve("rebinding.example", 80)
    assert (kept["host"], names.asked) == ("93.184.216.34", 1)
    with pytest.raises(OSError, match="no public address"):
        await resolver.resolve("rebinding.example", 80)
    port = fake.url.rpartition(":")[2]
    allowed = f"http://rebinding.example:{port}/"
    assert (await failure(get(f"{allowed}a", allowed, resolver=names))).kind is K.NODE_UNREACHABLE
    assert fake.asked == []


async def test_pages_are_bounded(fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes; packed ones and such that are no text are not read."""
    monkeypatch.setattr(fetch, "MOST_BYTES", 1_000)
    fake.replies["/long"] = Reply((b"x" * 5_000, b"y" * 5_000), headers={"content-type": "text/plain"})
    fake.replies["/packed"] = Reply((gzip.compress(b"x" * 100),), headers={"content-type": "text/plain", "content-encoding": "gzip"})
    fake.replies["/image"] = Reply((b"\x89PNG",), headers={"content-type": "image/png"})
    assert await get(f"{fake.url}/long", fake.url) == "x" * 1_000
    assert "packed" in (await failure(get(f"{fake.url}/packed", fake.url))).message
    assert "no text" in (await failure(get(f"{fake.url}/image", fake.url))).message


@pytest.mark.parametrize(("status", "kind"), [(500, K.MODEL_ERROR), (503, K.MODEL_ERROR), (429, K.MODEL_ERROR)])
async def test_a_server_that_fails_may_do_better(fake: FakeEndpoint, status: int, kind: K) -> None:
    """Another attempt follows; a 404 is a result."""
    fake.replies["/a"] = Reply((b"no",), status=status, headers={"content-type": "text/plain"})
    assert (await failure(get(f"{fake.url}/a", fake.url))).kind is kind


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    assert (await failure(get(url, url))).kind is K.NODE_UNREACHABLE


async def test_a_call_that_is_left_closes_its_connection(fake: FakeEndpoint) -> None:
    fake.replies["/a"] = Reply((b"x",), hangs=True, headers={"content-type": "text/plain"})
    task = asyncio.create_task(get(f"{fake.url}/a", fake.url))
    await until(lambda: bool(fake.asked), "it is asked")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(fake.left.wait(), 5)


def test_markup_that_is_broken_is_read_all_the_same() -> None:
    assert readable_text("<p>a<script>b") == "a"
    assert readable_text("a <b>c</i> d") == "a c d"
    assert readable_text("<style>x</style>y</script>") == "y"
