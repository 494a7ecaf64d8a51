"""The sink's store on a server of MongoDB's protocol: SecantusDB, a stand-in, where there is no mongod. That it keeps the promises of
`services/sink/port.py`, and says StoreAway whatever else the server does.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

import pytest

from services.sink.mongo import MongoStore
from services.sink.port import AUDIT, NODES, TOTALS, USAGE, Writes
from services.sink.queries import QUERIES
from shared.errors import ConfigurationError, StoreAway

pytestmark = [pytest.mark.mongo, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]
LATER = datetime(9999, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """pymongo leaves sockets of failed handshakes to the collector of garbage, also when its loop has ended."""
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@asynccontextmanager
async def opened(url: str, database: str | None = None) -> AsyncIterator[MongoStore]:
    store = MongoStore(url, database or f"test-{token_hex(4)}", 5.0)
    try:
        yield store
    finally:
        await store.close()


def job_row(writes: Writes, job: str, **fields: Any) -> None:
    upsert = writes.upsert(USAGE, job)
    upsert.fields.update(job=job, home="h.0", life=0, **fields)
    upsert.most.update(at=fields.get("at", 1.0), expires_at=LATER)
    upsert.fields.pop("at", None)


def added(writes: Writes, id_: str, *offsets: int) -> Writes:
    for offset in offsets:
        writes.add(id_, {"of": "jobs", "day": "2026-01-01", "tenant": "t"}, LATER, offset, {"jobs": 1, "calls": offset})
    return writes


async def test_an_upsert_is_the_same_when_it_is_repeated(mongo_url: str) -> None:
    """Fields of several writes come together, in any order; the larger and the smaller are kept."""
    async with opened(mongo_url) as store:
        await store.prepare()
        await store.prepare()
        first, second = Writes(), Writes()
        job_row(first, "a", tenant="t", **{"s.x1.agent": "chat", "s.x1.model": "m"}, at=5.0)
        job_row(second, "a", status="succeeded", settled=9, at=3.0)
        upsert = second.upsert(NODES, "n")
        upsert.least["from_ms"], upsert.most["to_ms"] = 5, 7
        for writes in (first, second, second, first):
            assert await store.write(writes) == 0
        rows = await store.find(USAGE, {"tenant": "t"}, order=[("at", -1)], limit=10)
        assert [(row["status"], row["at"], row["s"]["x1"]["agent"]) for row in rows] == [("succeeded", 5.0, "chat")]
        ((job, life),) = await store.lives("h.0", ["a", "b"])
        assert (job, life.offset, life.tenant, life.settled, life.steps) == ("a", 0, "t", 9, {"x1": ("chat", "m")})
        assert await store.lives("h.1", ["a"]) == []


async def test_a_sum_takes_each_record_once(mongo_url: str) -> None:
    """By whom and in which writes it may come again."""
    database = f"test-{token_hex(4)}"
    async with opened(mongo_url, database) as one, opened(mongo_url, database) as two:
        await one.write(added(Writes(), "s", 1, 2, 3))
        await one.write(added(Writes(), "s", 2, 3))
        await two.write(added(Writes(), "s", 1, 2, 3, 4))
        await one.write(added(Writes(), "s", 3, 4, 5))  # it does not know of 4
        await asyncio.gather(*(store.write(added(Writes(), "s", 6, 7, 8)) for store in (one, two)))
        await asyncio.gather(*(store.write(added(Writes(), f"t{n}", 1)) for store in (one, two) for n in range(5)))
        rows = await one.find(TOTALS, {"tenant": "t"}, order=[("day", 1)], limit=100)
        assert sorted((row["jobs"], row["calls"], row["reached"]) for row in rows) == [(1, 1, 1)] * 5 + [(8, 36, 8)]


async def test_the_chain_is_found_where_reading_begins(mongo_url: str) -> None:
    """Of the newest entry below an offset, in whichever block."""
    async with opened(mongo_url) as store:
        assert (await store.begun("h.0", 10)).epoch is None
        writes = Writes()
        for block, offset in ((0, 3), (0, 200), (2, 513)):
            upsert = writes.upsert(AUDIT, f"h.0.{block}")
            upsert.fields.update(home="h.0", block=block)
            upsert.fields[f"entries.{offset}"] = {"offset": offset, "epoch": offset - 1, "chain": f"c{offset}"}
        await store.write(writes)
        for offset, chain in ((4, "c3"), (200, "c3"), (201, "c200"), (512, "c200"), (513, "c200"), (514, "c513"), (9_999, "c513")):
            assert (await store.begun("h.0", offset)).chain == chain, offset
        assert (await store.begun("h.0", 3)).epoch is None
        assert (await store.begun("h.1", 999)).epoch is None
        assert await store.homes() == ["h.0"]


async def test_what_can_never_be_stored_is_given_up_alone(mongo_url: str) -> None:
    """A number of more than 64 bits, a document that is too large: the others of its write are kept."""
    async with opened(mongo_url) as store:
        writes = Writes()
        job_row(writes, "odd", calls=2**70)
        job_row(writes, "text", tenant="\ud800")
        job_row(writes, "good", tenant="t")
        assert await store.write(writes) == 2
        assert [row["job"] for row in await store.find(USAGE, {}, order=[("job", 1)], limit=9)] == ["good"]


async def test_pages_miss_nothing_whatever_begins_like_another(mongo_url: str) -> None:
    """Ids of one instant of which one is the beginning of another: a range that leaves such out would lose a row at a page's end."""
    async with opened(mongo_url) as store:
        await store.prepare()
        writes = Writes()
        for life in (3, 32, 321, 4, -1, 30):
            writes.upsert(USAGE, f"a@h.0.{life}").fields.update(job="a", home="h.0", life=life, tenant="t")
            writes.upsert(USAGE, f"a@h.0.{life}").most["at"] = 5.0
        await store.write(writes)
        jobs = next(kind for kind in QUERIES if kind.path == "/v1/usage/jobs")
        for tenant in (None, "t"):
            found, before = [], None
            for _ in range(7):
                query = jobs.model_validate({"limit": 1} | ({} if before is None else {"before": before}))
                page = await query.answer(store, tenant, 0.0)
                found += [row["life"] for row in page["rows"]]
                before = page["next"]
            assert found == [4, 321, 32, 30, 3, -1]
            assert before is None


async def test_indexes_are_there(mongo_url: str) -> None:
    """What expires does so by an index; ids of blocks are unique."""
    database = f"test-{token_hex(4)}"
    async with opened(mongo_url, database) as store:
        await store.prepare()
        for name in (USAGE, TOTALS, AUDIT, NODES):
            found = await store._database[name].index_information()
            assert any(index.get("expireAfterSeconds") == 0 for index in found.values()), name


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b"\x10\x00\x00\x00" + b"\xff" * 60, None])
async def test_nonsense_is_a_store_that_is_away(answer: bytes | None) -> None:
    """A server that closes, speaks HTTP, sends zeros, an odd message, or nothing at all."""

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(100) and answer is None:
                pass  # the client has enough
            writer.write(answer or b"")
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(on_client, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(f"mongodb://127.0.0.1:{port}/?directConnection=true") as store:
        with pytest.raises(StoreAway):
            await store.write(added(Writes(), "s", 1))
    server.close()


async def test_nobody_there_is_a_store_that_is_away(unused_tcp_port: int) -> None:
    """Within two seconds."""
    async with opened(f"mongodb://127.0.0.1:{unused_tcp_port}") as store:
        async with asyncio.timeout(4.0):
            with pytest.raises(StoreAway):
                await store.begun("h", 1)


@pytest.mark.parametrize("url", ["http://x", "mongodb://", "mongodb://a:b:c@", "mongodb://u:secret@h:0x/"])
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    """Which is not quoted: it may hold a password."""
    with pytest.raises(ConfigurationError) as raised:
        MongoStore(url, "tutti", 1.0)
    assert "secret" not in str(raised.value)
