"""The cache's promise on real Kafka and Redis: equal questions are asked once and answered at once, and whatever becomes of caches and
store, every caller has his answer as if there were none.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from infra.native.cluster import LocalCluster
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.redis import RedisServer
from infra.native.services import ServiceProcess
from shared.clock import SystemClock, until
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(300)]
CLOCK = SystemClock()
PATIENT = {"TUTTI_PLANNER__CACHE_EXACT_SECONDS": "2", "TUTTI_CACHE__STORE_TIMEOUT_SECONDS": "1"}
"""Where a test counts what is served: this machine may be busy with others."""
ASK = {"x-tutti-cache": "exact; ttl=600"}


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 4_000, **more}


async def ask(client: httpx.AsyncClient, text: str, tenant: str = "red", *, headers: dict[str, str] = ASK, **more: Any) -> httpx.Response:
    response = await client.post("/v1/chat/completions", json=body(text, **more), headers={**headers, "x-tutti-tenant": tenant})
    assert response.status_code == 200, response.text
    return response


def kind(response: httpx.Response) -> str:
    return response.headers.get("x-tutti-cache", "none").partition(";")[0]


def said(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def verify(cluster: LocalCluster) -> None:
    """Nothing lost, nothing accepted twice, and what was served is history like all else."""
    environment = {**os.environ, "TUTTI_KAFKA_SERVERS": cluster.servers, "TUTTI_TOPICS__PREFIX": cluster.prefix}
    command = [sys.executable, "-m", "infra.cli", "verify", "--settled"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def started(cluster: StartCluster, store: str, **options: Any) -> LocalCluster:
    simulator = ("--profile", "instant", "--models", "small:1")
    return cluster("cache", simulator=simulator, environment={"TUTTI_CACHE__STORE": store, **options.pop("environment", {})}, **options)


async def ready(service: ServiceProcess, wanted: int = 200, seconds: float = 30.0) -> str:
    found: list[httpx.Response] = []

    async def look() -> int:
        async with httpx.AsyncClient() as client:
            try:
                found.append(await client.get(f"{service.url}/readyz", timeout=2))
            except httpx.HTTPError:
                return 0
        return found[-1].status_code

    last = CLOCK.monotonic() + seconds
    while await look() != wanted:
        assert CLOCK.monotonic() < last, found[-1:]
        await CLOCK.sleep(0.1)
    return found[-1].text


async def test_equal_questions_are_asked_once_and_nobody_sees_anothers(cluster: StartCluster, empty_redis: str) -> None:
    one = await asyncio.to_thread(started, cluster, empty_redis, copies={"cache": 2}, environment=PATIENT)
    async with httpx.AsyncClient(base_url=one.url, timeout=60) as client:
        first, again = await ask(client, "why"), await ask(client, "why")
        assert (kind(first), kind(again), said(again)) == ("miss", "hit", said(first))
        assert again.json()["usage"]["total_tokens"] == 0
        assert again.json()["tutti"]["cache"]["saved"]["completion_tokens"] == first.json()["usage"]["completion_tokens"]
        streamed = await ask(client, "why", stream=True)
        assert kind(streamed) == "hit"
        assert streamed.text.rstrip().endswith("data: [DONE]")
        others = [await ask(client, "why", tenant=f"tenant-{number}") for number in range(3)]
        others += [await ask(client, "how"), await ask(client, "why", max_tokens=3_999), await ask(client, "why", seed=3)]
        assert {kind(other) for other in others} == {"miss"}
        not_asked = [await ask(client, "why", headers={}), await ask(client, "why", headers={"x-tutti-cache": "exact; no-cache"})]
        assert [kind(other) for other in not_asked] == ["none", "miss"]
        together = await asyncio.gather(*(ask(client, "all at once") for _ in range(20)))
        assert Counter(map(kind, together)) == {"miss": 1, "hit": 19}
        entry = again.json()["tutti"]["cache"]["entry"]
        await purging(one, entry)
        assert kind(await ask(client, "why")) == "miss"
        assert kind(await ask(client, "why")) == "miss"
        assert kind(await ask(client, "how")) == "miss"
        assert kind(await ask(client, "how")) == "hit"
    await asyncio.to_thread(verify, one)


async def purging(cluster: LocalCluster, entry: str) -> None:
    """By the other cache's API: the store is both's. Then that question is barred, and all of the tenant's others are gone."""
    async with httpx.AsyncClient(base_url=cluster.services["cache-2"].url, timeout=10) as admin:
        barred = await admin.post("/v1/cache/bar", json={"entry": entry})
        assert barred.json()["was_there"] is True, barred.text
        dry = await admin.post("/v1/cache/purge", json={"tenant": "red"})
        done = await admin.post("/v1/cache/purge", json={"tenant": "red", "dry_run": False})
        assert dry.json()["entries"] == done.json()["entries"] >= 3
        assert (await admin.post("/v1/cache/purge", json={})).status_code == 400
        stats = (await admin.get("/v1/cache")).json()
        assert (stats["barred"], stats["entries"] >= 3) == (1, True)


@pytest.mark.faults
async def test_killed_caches_cost_nobody_an_answer(cluster: StartCluster, empty_redis: str) -> None:
    """SIGKILL in mid-batch, again and again, of two that share the partitions: everybody is answered, and soon from the cache again."""
    one = await asyncio.to_thread(
        started, cluster, empty_redis, copies={"cache": 2}, workers=2, environment=PATIENT | {"TUTTI_PLANNER__CACHE_EXACT_SECONDS": "0.2"}
    )
    random, kinds, slowest = Random(3), Counter[str](), 0.0
    over = asyncio.Event()

    async def caller(client: httpx.AsyncClient) -> None:
        nonlocal slowest
        while not over.is_set():
            began = CLOCK.monotonic()
            response = await ask(client, f"question {random.randrange(40)}", tenant=random.choice(("red", "green")))
            slowest = max(slowest, CLOCK.monotonic() - began)
            kinds[kind(response)] += 1

    async with httpx.AsyncClient(base_url=one.url, timeout=60) as client:
        callers = [asyncio.create_task(caller(client)) for _ in range(8)]
        for number in range(4):
            await CLOCK.sleep(1.5)
            victim = one.services["cache" if number % 2 else "cache-2"]
            victim.daemon.kill()
            await CLOCK.sleep(0.5)
            await asyncio.to_thread(victim.start)
        for name in ("cache", "cache-2"):
            await ready(one.services[name])
        before = kinds["hit"]
        assert await until(CLOCK, lambda: kinds["hit"] > before + 200, 60.0)
        over.set()
        await asyncio.gather(*callers)
    assert slowest < 20.0
    await asyncio.to_thread(verify, one)


@pytest.mark.faults
async def test_a_store_that_is_away_is_a_miss_and_readiness_tells(cluster: StartCluster, redis_url: str, tmp_path: Path) -> None:
    store = RedisServer(StackHome(tmp_path / "store"), free_ports(1)[0], dies_with_parent=True, name="redis-cache", evicts=True)
    store.start()
    one = await asyncio.to_thread(
        started, cluster, store.url, copies={"cache": 1}, environment=PATIENT | {"TUTTI_CACHE__STORE_TIMEOUT_SECONDS": "0.2"}
    )
    async with httpx.AsyncClient(base_url=one.url, timeout=60) as client:
        assert [kind(await ask(client, "why")) for _ in range(2)] == ["miss", "hit"]
        store.stop()
        began = CLOCK.monotonic()
        assert [kind(await ask(client, "why")) for _ in range(10)] == ["miss"] * 10
        assert CLOCK.monotonic() - began < 5.0
        assert "Redis" in await ready(one.services["cache"], 503)
        together = await asyncio.gather(*(ask(client, "meanwhile") for _ in range(10)))
        assert Counter(map(kind, together))["hit"] >= 5, "whoever waits for an equal step needs no store"
        store.start()
        await ready(one.services["cache"])
        assert [kind(await ask(client, "why")) for _ in range(2)] == ["miss", "hit"]
    await asyncio.to_thread(verify, one)
    store.stop()
