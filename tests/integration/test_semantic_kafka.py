"""Promise: a question that only is worded otherwise is answered from the cache, one that is not the same never is, nor another tenant's.

How: Kafka, Redis with vector sets, and a real Ollama with all-minilm as a node that the cache asks through Kafka; chats go to a simulated
node. Pairs of questions as in `infra/lab/questions`, those that nothing was tuned on.

    question ─► planner ─► cache ─► embed job ─► node ─► cache ─► vector set, vetoes, threshold ─► planner ─► caller
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import httpx
import pytest
from redis.asyncio import Redis

from infra.lab.bench.asking import Asking
from infra.lab.bench.meanings import measured, sampled, semantic_cluster
from infra.lab.questions import pairs
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.ollama, pytest.mark.alone, pytest.mark.timeout(300)]
CLOCK = SystemClock()
PATIENT = {
    "TUTTI_PLANNER__CACHE_MEANING_SECONDS": "2",
    "TUTTI_CACHE__SEMANTIC_SECONDS": "1.9",
    "TUTTI_CACHE__STORE_TIMEOUT_SECONDS": "0.5",
}
"""What is served is looked at here, not how soon: a busy machine makes a miss of a lookup after 80 ms, as it should."""
ASKED, SAME, OTHER = "How tall is Mount Everest?", "What is the height of Mount Everest?", "What is the height of Mount Fuji?"


async def kind(client: httpx.AsyncClient, question: str, *, tenant: str = "red", system: str = "be brief", wish: str = "semantic") -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = {"model": "small", "messages": messages, "temperature": 0, "max_tokens": 200}
    headers = {"x-tutti-cache": f"{wish}; ttl=600; tag=heights", "x-tutti-tenant": tenant}
    response = await client.post("/v1/chat/completions", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.headers.get("x-tutti-cache", "").partition("; entry")[0]


def test_meanings_on_real_components(kafka: str, empty_redis: str, ollama_url: str) -> None:
    with semantic_cluster(kafka, empty_redis, ollama_url, PATIENT) as cluster:
        asyncio.run(_all_of_it(cluster, empty_redis))


async def _all_of_it(cluster: LocalCluster, store: str) -> None:
    async with httpx.AsyncClient(base_url=cluster.url, timeout=60) as client:
        await _one_question(client, cluster, store)
    async with aiohttp.ClientSession() as session:
        hits, count, _, _ = await measured(Asking(session, cluster.url, "small"), sampled(pairs("holdout"), 6), "holdout")
    print({family: f"{hits[family]}/{number}" for family, number in count.items()})
    assert {family: found for family, found in hits.items() if family} == {}
    assert hits[""] >= 0.3 * count[""]


async def _one_question(client: httpx.AsyncClient, cluster: LocalCluster, url: str) -> None:
    await _warm(client)
    assert await kind(client, ASKED) == "miss"
    store: Any = Redis.from_url(url)
    sets = await _sets(store, 2)  # the warm one's and this one's
    assert await kind(client, SAME) == "hit; kind=semantic"
    assert await kind(client, OTHER) == "miss"
    assert await kind(client, SAME, tenant="blue") == "miss"
    assert await kind(client, SAME, system="be wordy") == "miss"
    async with httpx.AsyncClient(base_url=cluster.services["cache"].url, timeout=10) as admin:
        done = await admin.post("/v1/cache/purge", json={"tag": "heights", "dry_run": False})
        assert done.json()["entries"] >= 4, done.text
    assert [await store.exists(name) for name in sets] == [0] * len(sets), "vectors go with their entries"
    await store.aclose()
    assert await kind(client, SAME) == "miss"


async def _warm(client: httpx.AsyncClient) -> None:
    """The node's model is loaded with the first embedding, which no lookup waits for."""
    await kind(client, "What is warm?", system="warm")
    deadline = CLOCK.monotonic() + 60
    while await kind(client, "Please tell me: what is warm?", system="warm") != "hit; kind=semantic":
        assert CLOCK.monotonic() < deadline, "no semantic hit within a minute"
        await CLOCK.sleep(0.5)


async def _sets(store: Any, number: int) -> list[bytes]:
    """What was learnt is beside the path of an answer."""
    found: list[bytes] = []

    async def look() -> list[bytes]:
        return [name async for name in store.scan_iter(match="*cache-near1:*")]

    for _ in range(100):
        if len(found := await look()) >= number:
            break
        await CLOCK.sleep(0.1)
    assert len(found) >= number
    return found
