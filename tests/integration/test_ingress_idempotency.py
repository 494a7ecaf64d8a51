"""Promise: with Redis an id is claimed for 24 h, at once and across instances; without an answer from Redis the planner decides.

How: ingresses on the in-memory log with a real Redis behind them, started anew with nothing to look back at, and cut off.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from services.ingress.admission.idempotency import job_id_of
from services.ingress.app import Ingress
from services.ingress.status.status import JobState
from shared.clock import SystemClock
from shared.contracts.job import Job
from shared.telemetry import metrics
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, opening, running, world

pytestmark = pytest.mark.redis
CHAT, JOBS = "/v1/chat/completions", "/v1/jobs"
KEY = {"idempotency-key": "once"}


def chat(text: str = "hi") -> dict[str, Any]:
    return {"model": "tiny:1", "messages": [{"role": "user", "content": text}]}


def silent(_job: Job) -> Script:
    """A planner that is busy with other things: only the store can tell."""
    return Script(silent=True)


def another(at: World, **settings: Any) -> Ingress:
    return opening(at, "test-2", **{"events_lookback": 0, **settings})


async def stored(at: World, job: str) -> None:
    store = at.ingress.door.store
    assert store is not None
    for _ in range(500):
        found = await store.load(job)
        if found is not None and found.state is JobState.SETTLED:
            return
        await SystemClock().sleep(0.01)
    raise AssertionError(f"{job} is not stored")


async def test_another_body_is_a_conflict_before_the_planner_has_said_a_word(empty_redis: str) -> None:
    """At the same instance and at another one; claims live 24 h."""
    settings = {"redis_url": empty_redis, "first_word_seconds": 0.05}
    async with world(script=silent, settings=settings) as at:
        assert (await at.client.post(JOBS, json={"prompt": "a"}, headers=KEY)).status_code == 202
        async with running(another(at, **settings)) as second:
            assert (await second.post(JOBS, json={"prompt": "b"}, headers=KEY)).status_code == 409
            assert (await second.post(CHAT, json=chat(), headers=KEY)).status_code == 409
            again = await second.post(JOBS, json={"prompt": "a"}, headers=KEY)
            assert (again.status_code, again.json()["state"]) == (202, "queued")
    client: Any = Redis.from_url(empty_redis)
    assert 86_000 < await client.ttl("tutti:claim:" + job_id_of("default", "once")) <= 86_400
    await client.aclose()


async def test_concurrent_posts_at_two_instances_are_one_claim(empty_redis: str) -> None:
    """Twenty posts of two bodies under one key: one body wins everywhere."""
    settings = {"redis_url": empty_redis, "first_word_seconds": 0.05}
    async with world(script=silent, settings=settings) as at, running(another(at, **settings)) as second:
        posts = [client.post(JOBS, json={"prompt": text}, headers=KEY) for text in "ab" * 5 for client in (at.client, second)]
        statuses = [response.status_code for response in await asyncio.gather(*posts)]
        by_body = {statuses[n] for n in range(20) if n % 4 < 2}, {statuses[n] for n in range(20) if n % 4 >= 2}
        assert by_body in (({202}, {409}), ({409}, {202}))


async def test_the_result_outlives_instances_and_the_planners_memory(empty_redis: str) -> None:
    """A new instance that looks back at nothing answers from the store; the planner is not asked."""
    settings = {"redis_url": empty_redis}
    async with world(settings=settings) as at:
        first = (await at.client.post(f"{JOBS}?wait=5", json={"prompt": "a"}, headers=KEY)).json()
        completion = (await at.client.post(CHAT, json=chat(), headers={"idempotency-key": "two"})).json()
        for key in ("once", "two"):
            await stored(at, job_id_of("default", key))
        before = at.planner.submissions
        async with running(another(at, **settings)) as second:
            again = await second.post(JOBS, json={"prompt": "a"}, headers=KEY)
            assert (again.status_code, again.json()["result"]) == (200, first["result"])
            assert (await second.post(CHAT, json=chat(), headers={"idempotency-key": "two"})).json() == completion
            assert (await second.post(CHAT, json=chat("other"), headers={"idempotency-key": "two"})).status_code == 409
        assert at.planner.submissions == before


async def test_redis_away_leaves_it_to_the_planner(unused_tcp_port: int) -> None:
    """Same answers within the planner's window; the errors are counted."""
    before = metrics.STATUS_STORE_ERRORS._value.get()
    settings = {"redis_url": f"redis://127.0.0.1:{unused_tcp_port}/0", "redis_timeout_seconds": 0.2}
    async with world(settings=settings) as at:
        first = (await at.client.post(f"{JOBS}?wait=5", json={"prompt": "a"}, headers=KEY)).json()
        async with running(another(at, **settings)) as second:
            again = await second.post(JOBS, json={"prompt": "a"}, headers=KEY)
            assert (again.status_code, again.json()["result"]) == (200, first["result"])
            assert (await second.post(JOBS, json={"prompt": "b"}, headers=KEY)).status_code == 409
    assert metrics.STATUS_STORE_ERRORS._value.get() > before
