"""The status store's promises, on a real Redis.

What: status outlives the process; several readers of the same events apply nothing twice and never go back; Redis away costs nothing
but old status.
How: the store alone, then ingresses on the in-memory log with Redis behind them, started, stopped, cut off.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from services.ingress.status.status import JobState, JobStatus
from services.ingress.status.store import Position, StatusStore
from shared.clock import SystemClock
from shared.contracts.job import Job
from shared.errors import StoreAway
from shared.kafka.memory.memory import MemoryLog
from shared.telemetry import metrics
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, opening, running, until, world

pytestmark = pytest.mark.redis


def open_store(url: str, **changes: Any) -> StatusStore:
    return StatusStore(url, **{"prefix": "t-", "ttl_seconds": 100, "connections": 4, "timeout_seconds": 2.0, **changes})


def view(job: str, offset: int, state: JobState = JobState.RUNNING) -> JobStatus:
    return JobStatus(id=job, home=2, offset=offset, state=state)


async def test_views_and_positions_are_written_together(empty_redis: str) -> None:
    """Read back equal, with a time to live; positions by partition with their epoch."""
    store = open_store(empty_redis)
    assert await store.save(2, Position(10, 3), [view("a", 9), view("b", 8)])
    assert await store.load("a") == view("a", 9)
    assert set(await store.load_many(["a", "b", "c"])) == {"a", "b"}
    assert await store.positions() == {2: Position(10, 3)}
    client: Any = Redis.from_url(empty_redis)
    assert 90 <= await client.ttl("tutti:t-job:a") <= 100
    await client.aclose()
    await store.close()


async def test_who_is_behind_writes_nothing(empty_redis: str) -> None:
    """A slower reader of the same events does not take a view back."""
    fast, slow = open_store(empty_redis), open_store(empty_redis)
    assert await fast.save(2, Position(20, 3), [view("a", 19, JobState.SETTLED)])
    assert not await slow.save(2, Position(15, 3), [view("a", 14)])
    assert not await slow.save(2, Position(20, 3), [view("a", 14)])
    assert await slow.save(1, Position(5, 0), [])
    assert await fast.load("a") == view("a", 19, JobState.SETTLED)
    await fast.close()
    await slow.close()


async def test_a_queued_job_is_remembered_but_never_over_its_events(empty_redis: str) -> None:
    """`remember` comes second to every event."""
    store = open_store(empty_redis)
    await store.save(2, Position(10), [view("a", 9)])
    await store.remember([view("a", -1, JobState.QUEUED), view("b", -1, JobState.QUEUED)])
    loaded = await store.load_many(["a", "b"])
    assert {job: found.state for job, found in loaded.items()} == {"a": JobState.RUNNING, "b": JobState.QUEUED}
    await store.close()


async def test_an_erased_tenants_jobs_are_forgotten(empty_redis: str) -> None:
    """Those of before; of ids that tell their tenant and of those that do not. More keys than one look takes."""
    store = open_store(empty_redis)
    names = {"acme": ("acme/mine", "j_1"), "globex": ("globex/mine", "j_2"), "default": ("order-1",)}
    views = [view(job, 5).model_copy(update={"tenant": tenant, "accepted_at": 10.0}) for tenant, jobs in names.items() for job in jobs]
    crowd = [view(f"acme/{number}", 5).model_copy(update={"tenant": "acme", "accepted_at": 10.0}) for number in range(1_200)]
    later = view("acme/later", 6).model_copy(update={"tenant": "acme", "accepted_at": 30.0})
    await store.save(2, Position(10), [*views, *crowd, later])
    assert await store.erase("acme", 20.0) == 1_202
    assert await store.erase("acme", 20.0) == 0
    assert set(await store.load_many([*(one.id for one in views), "acme/7", "acme/later"])) == {
        "globex/mine",
        "j_2",
        "order-1",
        "acme/later",
    }
    assert await store.positions() == {2: Position(10)}
    await store.close()


async def test_what_another_version_wrote_is_no_error(empty_redis: str) -> None:
    """The events are the truth; an unreadable view is as good as none."""
    client: Any = Redis.from_url(empty_redis)
    await client.set("tutti:t-job:a", b'{"id": 1}')
    await client.aclose()
    store = open_store(empty_redis)
    assert await store.load("a") is None
    await store.close()


async def test_an_absent_redis_is_a_typed_error_within_its_time(unused_tcp_port: int) -> None:
    """Every method, bounded."""
    store = open_store(f"redis://127.0.0.1:{unused_tcp_port}/0", timeout_seconds=0.2)
    async with asyncio.timeout(5):
        for call in (store.load("a"), store.positions(), store.save(0, Position(1), []), store.remember([view("a", 0)])):
            with pytest.raises(StoreAway):
                await call
    await store.close()


async def settle(at: World, count: int) -> list[str]:
    jobs = [(await at.client.post("/v1/jobs?wait=5", json={"prompt": str(number)})).json()["id"] for number in range(count)]
    store = at.ingress.door.store
    assert store is not None
    found: dict[str, JobStatus] = {}

    async def stored() -> bool:
        found.update(await store.load_many(jobs))
        return len(found) == count and all(each.state is JobState.SETTLED for each in found.values())

    for _ in range(500):
        if await stored():
            return jobs
        await SystemClock().sleep(0.01)
    raise AssertionError(f"stored: {found}")


async def test_status_outlives_the_process_and_the_memory(empty_redis: str) -> None:
    """A new instance that looks back at nothing still knows every job, its result and its end; it goes on where the last one was."""
    log = MemoryLog(SystemClock())
    settings: dict[str, Any] = {"redis_url": empty_redis, "events_lookback": 0}
    async with world(log, settings=settings) as at:
        jobs = await settle(at, 5)
        positions = await at.ingress.door.store.positions()
        second = opening(at, "test-2", **settings)
        async with running(second) as client:
            for job in jobs:
                status = (await client.get(f"/v1/jobs/{job}")).json()
                assert (status["state"], status["result"]["answer"]["text"]) == ("settled", "hello back")
                events = (await client.get(f"/v1/jobs/{job}/events")).text
                assert "event: status" in events
            tail = second.door.events.tail
            assert {p.partition: offset for p, offset in tail.positions.items()} == {n: found.offset for n, found in positions.items()}
            assert len(second.door.journal) == 0


async def test_a_job_that_spans_a_restart_is_whole(empty_redis: str) -> None:
    """Accepted before, settled after: the new instance folds the rest onto what the store has."""
    log = MemoryLog(SystemClock())
    settings: dict[str, Any] = {"redis_url": empty_redis, "events_lookback": 0}
    async with world(log, script=lambda _job: Script(hold=True), settings=settings) as at:
        job = (await at.client.post("/v1/jobs", json={"prompt": "x", "class": "batch"})).json()["id"]
        store = at.ingress.door.store
        assert store is not None
        for _ in range(500):
            found = await store.load(job)
            if found is not None and found.state is JobState.RUNNING:
                break
            await SystemClock().sleep(0.01)
        second = opening(at, "test-2", **settings)
        async with running(second) as client:
            await at.planner.release(job)
            status: dict[str, Any] = {}
            for _ in range(500):
                status = (await client.get(f"/v1/jobs/{job}")).json()
                if status["state"] == "settled":
                    break
                await SystemClock().sleep(0.01)
            assert status["state"] == "settled"
            assert status["class"] == "batch"
            assert [step["nodes"] for step in status["steps"]] == [["node-1"]]


async def test_redis_away_costs_no_job(unused_tcp_port: int) -> None:
    """Answers, submissions, status and events work from memory; the errors are counted."""
    before = metrics.STATUS_STORE_ERRORS._value.get()
    settings = {"redis_url": f"redis://127.0.0.1:{unused_tcp_port}/0", "redis_timeout_seconds": 0.2}
    async with world(settings=settings) as at:
        body = {"messages": [{"role": "user", "content": "x"}]}
        assert (await at.client.post("/v1/chat/completions", json=body)).status_code == 200
        response = await at.client.post("/v1/jobs?wait=5", json={"prompt": "x"})
        assert response.json()["state"] == "settled"
        job = response.json()["id"]
        assert (await at.client.get(f"/v1/jobs/{job}")).json()["state"] == "settled"
        assert "job_settled" in (await at.client.get(f"/v1/jobs/{job}/events")).text
        assert (await at.client.get("/v1/jobs/unknown")).status_code == 404
        await until(lambda: metrics.STATUS_STORE_ERRORS._value.get() > before, "errors are counted")


async def test_two_instances_write_one_truth(empty_redis: str) -> None:
    """Both read everything and write to the same store: what is there at the end is the whole status of every job."""
    log = MemoryLog(SystemClock())

    def script(job: Job) -> Script:
        return Script(text=str(job.prompt))

    async with world(log, script=script, settings={"redis_url": empty_redis}) as at:
        second = opening(at, "test-2", redis_url=empty_redis)
        async with running(second):
            jobs = await settle(at, 30)
            store = at.ingress.door.store
            assert store is not None
            for number, job in enumerate(jobs):
                found = await store.load(job)
                assert found is not None
                known = at.ingress.door.journal.status(job)
                assert known is not None
                assert found == known.model_copy(update={"queued_offset": found.queued_offset})  # who submitted it alone knows that
                assert found.result is not None
                assert found.result.answer is not None
                assert found.result.answer.text == str(number)


async def test_what_one_instance_has_queued_another_knows_at_once(empty_redis: str) -> None:
    """Whoever has its id may ask at another one before a planner has said anything of it, however many come at once."""
    settings: dict[str, Any] = {"redis_url": empty_redis, "flush_seconds": 60.0}
    async with world(script=lambda _: Script(silent=True), settings=settings) as at:
        second = opening(at, "test-2", **settings)
        async with running(second) as other:

            async def seen(number: int) -> int:
                queued = await at.client.post("/v1/jobs", json={"prompt": str(number)})
                return (await other.get(f"/v1/jobs/{queued.json()['id']}")).status_code

            assert set(await asyncio.gather(*map(seen, range(30)))) == {200}
