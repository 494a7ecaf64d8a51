"""Promise: instances that share a Redis share each key's limit, atomically; a bucket is forgotten once it is full.

How: several stores on a real Redis, asked at the same time.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from services.ingress.admission.bucket_store import BucketStore, Debit, bucket_store
from services.ingress.settings import IngressSettings
from shared.access import Rate
from shared.clock import SystemClock
from shared.errors import StoreAway

pytestmark = pytest.mark.redis


def opened(url: str, *, timeout_seconds: float = 2.0) -> BucketStore:
    found = bucket_store(IngressSettings(redis_url=url, keys_file="keys", redis_timeout_seconds=timeout_seconds), "t-")
    assert found is not None
    return found


async def test_three_instances_never_give_more_than_one_bucket_holds(empty_redis: str) -> None:
    """300 asks at once: what is given is the burst and what flowed in meanwhile."""
    stores = [opened(empty_redis) for _ in range(3)]
    rate, clock = Rate(5, 50), SystemClock()
    began = clock.monotonic()
    asks = [stores[n % 3].take([Debit("{a}:requests", rate, 1)]) for n in range(300)]
    given = sum(levels[0].wait_seconds == 0 for levels in await asyncio.gather(*asks))
    assert 50 <= given <= 50 + 5 * (clock.monotonic() - began) + 1
    for store in stores:
        await store.close()


async def test_all_or_none_and_exactly_when(empty_redis: str) -> None:
    """What one bucket refuses is not taken from the other; who waits as told is served."""
    store = opened(empty_redis)
    many, few = Rate(1, 10), Rate(10, 2)
    both = [Debit("{a}:requests", many, 1), Debit("{a}:tokens", few, 2)]
    clock = SystemClock()
    began = clock.monotonic()
    first = await store.take(both)
    assert [level.wait_seconds for level in first] == [0, 0]
    refused = await store.take(both)
    assert refused[0].wait_seconds == 0
    assert 0.2 - (clock.monotonic() - began) - 0.001 <= refused[1].wait_seconds <= 0.2
    assert refused[0].remaining(many) == 9
    await clock.sleep(refused[1].wait_seconds)
    again = await store.take(both)
    assert [level.wait_seconds for level in again] == [0, 0]
    assert again[0].remaining(many) == 8
    await store.close()


async def test_settling_gives_back_and_bounds_debt_and_life(empty_redis: str) -> None:
    """A bucket that is full again leaves Redis; none lives longer than a burst takes to fill, and a day."""
    store, rate = opened(empty_redis), Rate(1, 100)
    client: Any = Redis.from_url(empty_redis)
    await store.take([Debit("b", rate, 60)])
    assert 59_000 < await client.pttl("tutti:t-bucket:b") <= 60_001
    await store.settle({"b": (rate, -20.0)})
    [level] = await store.take([Debit("b", rate, 0)])
    assert level.full_seconds == pytest.approx(40, abs=0.5)
    await store.settle({"b": (rate, 5_000.0)})
    assert 5_039_000 < await client.pttl("tutti:t-bucket:b") <= 5_040_001
    await store.settle({"b": (rate, 1e9)})
    assert 86_499_000 < await client.pttl("tutti:t-bucket:b") <= 86_500_001
    await store.settle({"b": (rate, -1e9)})
    assert not await client.exists("tutti:t-bucket:b")
    await client.aclose()
    await store.close()


async def test_a_store_that_does_not_answer_says_so(unused_tcp_port: int) -> None:
    """Within its timeout, with the one error that callers handle."""
    store = opened(f"redis://127.0.0.1:{unused_tcp_port}/0", timeout_seconds=0.2)
    async with asyncio.timeout(5):
        with pytest.raises(StoreAway):
            await store.take([Debit("a", Rate(1, 1), 1)])
        with pytest.raises(StoreAway):
            await store.settle({"a": (Rate(1, 1), 1.0)})
    await store.close()
