"""The cache's store on a real Redis: entries come back equal, in time, or not at all, whatever the store does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.redis import RedisServer
from services.cache.port import BARRED, CacheEntry, FoundEntry, Purge
from services.cache.redis_store import RedisCache
from services.cache.settings import CacheSettings
from shared.clock import SystemClock
from shared.contracts.chat import Answer
from shared.contracts.usage import Usage
from shared.errors import StoreAway

pytestmark = pytest.mark.redis

CLOCK = SystemClock()
A, B, C = "a" * 64, "b" * 64, "c" * 64


def entry(key: str = A, **more: Any) -> CacheEntry:
    given = {"tenant": "red", "model": "small:latest", "job": "red/j", "ttl": 60.0, "answer": Answer(text="größe"), "usage": Usage(calls=1)}
    return CacheEntry(key=key, **{**given, **more})


@asynccontextmanager
async def opened(url: str, **changes: Any) -> AsyncIterator[RedisCache]:
    store = RedisCache(CacheSettings(store=url, **{"store_timeout_seconds": 1.0, **changes}), "t*-")
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[Any]:
    client: Any = Redis.from_url(url)
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


@pytest.fixture
def evicting(tmp_path: Path, redis_url: str) -> Any:
    """One as the launcher starts it for the cache."""
    one = RedisServer(StackHome(tmp_path), free_ports(1)[0], dies_with_parent=True, name="redis-cache", evicts=True, memory_mb=16)
    one.start()
    yield one
    one.stop()


async def test_an_entry_comes_back_equal_with_its_age_and_leaves_in_time(empty_redis: str) -> None:
    async with opened(empty_redis) as store:
        await store.keep([entry(), entry(B, ttl=0.2)])
        await CLOCK.sleep(0.3)
        found, gone, never = await store.find([A, B, C])
        assert isinstance(found, FoundEntry)
        assert found.entry == entry()
        assert 0.25 < found.age_seconds < 5.0
        assert (gone, never) == (None, None)


@pytest.mark.parametrize("kind", ["foreign bytes", "another entry's", "another form", "another type", "no time to live", "too much"])
async def test_what_is_no_entry_of_this_key_is_none_and_goes(empty_redis: str, kind: str) -> None:
    async with opened(empty_redis) as store, raw(empty_redis) as client:
        await store.keep([entry(B)])
        name = f"tutti:t*-cache1:{A}"
        match kind:
            case "another type":
                await client.rpush(name, "x")
            case "no time to live":
                await client.set(name, entry().to_bytes())
            case _:
                values = {
                    "foreign bytes": b"\xff\x00{",
                    "another entry's": entry(B).to_bytes(),
                    "another form": entry().to_bytes().replace(b'"form":1', b'"form":2'),
                    "too much": b"x" * 1_000_000,
                }
                await client.set(name, values[kind], ex=60)
        assert [isinstance(found, FoundEntry) for found in await store.find([A, B])] == [False, True]
        assert not await client.exists(name)


async def test_a_foreign_key_in_the_place_of_what_is_barred_is_the_store_away(empty_redis: str) -> None:
    """Nobody can tell then what may be served."""
    async with opened(empty_redis) as store, raw(empty_redis) as client:
        await client.set("tutti:t*-cache-barred", "x")
        with pytest.raises(StoreAway):
            await store.find([A])


async def test_a_purge_counts_first_and_takes_away_what_all_holds_of(empty_redis: str) -> None:
    entries = [
        entry("1" * 64, tags=("t",)),
        entry("2" * 64, tags=("t", "u"), tenant="green"),
        entry("3" * 64, documents=("doc",)),
        entry("4" * 64, model="large:1b"),
    ]
    async with opened(empty_redis) as store, raw(empty_redis) as client:
        await client.set("tutti:another", "stays")
        await client.set("tutti:t-other-cache1:x", "stays")
        await store.keep(entries)
        for which, count in (
            (Purge(tag="t"), 2),
            (Purge(tag="t", tenant="green"), 1),
            (Purge(document="doc"), 1),
            (Purge(model="large:1b"), 1),
            (Purge(tenant="red"), 3),
            (Purge(tag="unknown"), 0),
        ):
            assert await store.purge(which, dry=True) == count
        assert await store.purge(Purge(tag="t"), dry=False) == 2
        assert [found is not None for found in await store.find([one.key for one in entries])] == [False, False, True, True]
        assert await client.exists("tutti:another", "tutti:t-other-cache1:x") == 2


async def test_what_is_barred_is_neither_served_nor_taken_in_until_its_time_is_over(empty_redis: str) -> None:
    async with opened(empty_redis) as store:
        await store.keep([entry()])
        assert await store.bar(A, 1.0)
        assert not await store.bar(B, 60.0)
        await store.keep([entry(), entry(B)])
        assert await store.find([A, B, C]) == [BARRED, BARRED, None]
        assert (await store.stats())["barred"] == 2
        await CLOCK.sleep(2.1)
        assert await store.find([A]) == [None]
        await store.keep([entry()])
        assert isinstance((await store.find([A]))[0], FoundEntry)
        await store.bar(C, 60.0)
        assert (await store.stats())["barred"] == 2


async def test_a_full_store_evicts_entries_and_keeps_what_is_barred(evicting: RedisServer) -> None:
    async with opened(evicting.url) as store, raw(evicting.url) as client:
        await client.config_set("maxmemory", "3mb")
        await store.bar(A, 600.0)
        keys = [f"{number:064x}" for number in range(400)]
        for key in keys:
            await store.keep([entry(key, answer=Answer(text="x" * 10_000))])
        found = await store.find(keys)
        assert 0 < sum(one is not None for one in found) < 300
        assert (await store.find([A])) == [BARRED]
        assert (await store.stats())["evicted"] > 0


async def test_a_store_that_hangs_or_is_gone_costs_its_budget_and_no_more(evicting: RedisServer) -> None:
    async with opened(evicting.url) as patient, opened(evicting.url, store_timeout_seconds=0.05) as store:
        await patient.keep([entry()])
        async with raw(evicting.url) as client:
            await client.client_pause(1_500)
        began = CLOCK.monotonic()
        for call in (store.find([A]), store.keep([entry()])):
            with pytest.raises(StoreAway):
                await call
        assert CLOCK.monotonic() - began < 1.2
        async with asyncio.timeout(20):  # the pause ends by itself
            while True:
                with suppress(StoreAway):
                    assert isinstance((await store.find([A]))[0], FoundEntry)
                    break
        evicting.stop()
        for call in (store.find([A]), store.ping()):
            with pytest.raises(StoreAway):
                await call
        evicting.start()
    async with opened(evicting.url) as store:
        assert await store.find([A]) == [None]
