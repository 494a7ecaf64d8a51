"""Promise: vectors lie in Redis's own vector sets, one a partition and embedder, bounded, and gone with their entries.

How: a real Redis; no Kafka, vectors made here.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis

from infra.native.ports import free_ports
from services.cache.port import CacheEntry, Purge
from services.cache.redis_store import RedisCache
from services.cache.semantic.embedding import embedding
from services.cache.semantic.vectors import VectorSets
from services.cache.settings import CacheSettings
from shared.contracts.cache import Meaning
from shared.contracts.chat import Answer
from shared.contracts.usage import Usage
from shared.errors import StoreAway
from shared.validators.questions.threshold import EntryLabel

pytestmark = pytest.mark.redis
RED, BLUE = "a" * 64, "b" * 64
RANDOM = Random(1)


def vector(numbers: int = 384) -> array[float]:
    return embedding([RANDOM.gauss(0, 1) for _ in range(numbers)], "m").vector


@pytest.fixture
async def sets(empty_redis: str) -> AsyncIterator[VectorSets]:
    made = VectorSets(CacheSettings(store=empty_redis, vectors=20, store_timeout_seconds=2.0), "t.")
    yield made
    await made.close()


async def test_the_nearest_of_its_own_set_with_what_is_known_of_it(sets: VectorSets) -> None:
    mine = vector()
    await sets.add("e1", RED, "k1", mine, 60.0)
    await sets.add("e1", RED, "k2", vector(), 60.0)
    await sets.label("e1", RED, "k1", [EntryLabel(0.9, right=True), EntryLabel(0.8, right=False)])
    asked = [("e1", RED, mine), ("e1", BLUE, mine), ("e2", RED, mine), ("e1", RED, vector(8))]
    found, blue, other, dimension = await sets.near(asked, 4)
    assert [near.key for near in found] == ["k1", "k2"]
    assert found[0].similarity == pytest.approx(1.0, abs=1e-4)
    assert found[0].labels == (EntryLabel(0.9, right=True), EntryLabel(0.8, right=False))
    assert (blue, other, dimension) == ([], [], [])


async def test_a_set_is_bounded_and_lives_as_long_as_its_longest_entry(sets: VectorSets, empty_redis: str) -> None:
    for number in range(50):
        await sets.add("e", RED, f"k{number}", vector(), 100.0 if number == 3 else 10.0)
    store: Any = Redis.from_url(empty_redis)
    [name] = [name async for name in store.scan_iter(match="*cache-near1:*")]
    assert await store.execute_command("VCARD", name) <= 20
    assert 90 <= await store.ttl(name) <= 100
    await store.aclose()


async def test_what_was_purged_is_forgotten_whoever_embedded_it(sets: VectorSets, empty_redis: str) -> None:
    store = RedisCache(CacheSettings(store=empty_redis, store_timeout_seconds=2.0), "t.")
    store.purged = sets.forget
    kept, mine = [entry("1", tags=("old",)), entry("2")], vector()
    await store.keep(kept)
    for embedder in ("e1", "e2"):
        for one in kept:
            await sets.add(embedder, RED, one.key, mine, 60.0)

    assert await store.purge(Purge(tag="old"), dry=True) == 1
    assert [len(found) for found in await sets.near([("e1", RED, mine)], 4)] == [2]
    assert await store.purge(Purge(tag="old"), dry=False) == 1
    left = await sets.near([("e1", RED, mine), ("e2", RED, mine)], 4)
    assert [[near.key[0] for near in found] for found in left] == [["2"], ["2"]]
    await store.close()


def entry(key: str, tags: tuple[str, ...] = ()) -> CacheEntry:
    return CacheEntry(
        key=key * 64, tenant="red", model="m:latest", job="j", ttl=60.0, answer=Answer(text="x", model="m"), usage=Usage(),
        meaning=Meaning(partition=RED, question="how?"), tags=tags,
    )  # fmt: skip


async def test_what_others_wrote_there_is_no_label_and_a_foreign_key_is_said(sets: VectorSets, empty_redis: str) -> None:
    mine = vector()
    await sets.add("e", RED, "k1", mine, 60.0)
    store: Any = Redis.from_url(empty_redis)
    [name] = [name async for name in store.scan_iter(match="*cache-near1:*")]
    for said in ('{"labels": [[0.9]]}', '{"other": 1}', "[]"):
        await store.execute_command("VSETATTR", name, "k1", said)
        [[found]] = await sets.near([("e", RED, mine)], 1)
        assert found.labels == ()
    await store.set(name, "a text")
    assert await sets.near([("e", RED, mine)], 1) == [[]]
    with pytest.raises(StoreAway):
        await sets.add("e", RED, "k2", mine, 60.0)
    await store.aclose()


async def test_a_redis_that_is_away_is_said() -> None:
    gone = VectorSets(CacheSettings(store=f"redis://127.0.0.1:{free_ports(1)[0]}/0"), "t.")
    async with asyncio.timeout(10):
        with pytest.raises(StoreAway):
            await gone.near([("e", RED, vector())], 1)
    await gone.close()
