"""Promise: each run of a schedule begins exactly once, though planners are killed -9 around due times.

    registry ──► planner 1, planner 2      each owns some homes; a schedule's runs begin at the home hash(id)
                    │  kill -9 at a due time, by turns; the other takes its homes over
                    └─► job-events: ScheduleFired + JobAccepted in one batch ──► results

How: real Kafka, real processes, eight schedules that run every two seconds (`missed: all`), so that every home has some; each planner is
killed once within moments of a due time and started again. Afterwards `job-events` and `results` are read whole.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import aiohttp
import pytest

from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts.event import EVENT, JobAccepted, PlannerStarted, ScheduleFired
from shared.contracts.result import Result
from shared.kafka.client.aio import AioLog
from shared.kafka.port import TopicPartition
from shared.topics import Topics
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(240)]

NAMES = tuple(f"s{number}" for number in range(8))
PERIOD = 2
CLOCK = SystemClock()
CONVERGE_SECONDS = 60.0
LOOK_SECONDS = 0.5


async def _kill_and_restart(started: LocalCluster, name: str, offset: float) -> None:
    """At an instant that is so far from a due time."""
    await CLOCK.sleep(PERIOD - CLOCK.wall() % PERIOD + offset)
    await asyncio.to_thread(started.services[name].daemon.kill)
    await asyncio.to_thread(started.services[name].start)
    await asyncio.to_thread(started.services[name].await_ready)


async def _read(log: AioLog, topic: str, partitions: int) -> dict[int, list[tuple[int, bytes]]]:
    """Everything, by partition."""
    reader = await log.consumer(client_id="judge")
    places = [TopicPartition(topic, number) for number in range(partitions)]
    reader.assign(places)
    ends = await reader.end_offsets(places)
    found: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for place in places:
        reader.seek(place, 0)
    while any([await reader.position(place) < end for place, end in ends.items()]):
        for place, records in (await reader.poll(timeout_seconds=1.0)).items():
            found[place.partition].extend((record.offset, record.value or b"") for record in records)
    await reader.close()
    return found


def _valid(records: list[tuple[int, bytes]]) -> list[Any]:
    """ARCHITECTURE, planner protocol: an event counts if its epoch is the offset of the last PlannerStarted."""
    epoch, valid = -1, []
    for offset, value in records:
        event = EVENT.validate_json(value)
        if isinstance(event, PlannerStarted):
            epoch = offset
        elif event.epoch == epoch:
            valid.append(event)
    return valid


async def _history(log: AioLog, topics: Topics) -> list[Any]:
    by_home = await _read(log, topics.job_events, topics.settings.home_partitions)
    return [event for records in by_home.values() for event in _valid(records)]


def _runs(events: list[Any]) -> dict[str, set[float]]:
    """By schedule: the due times of those that began."""
    accepted = {event.job for event in events if isinstance(event, JobAccepted)}
    runs: dict[str, set[float]] = {name: set() for name in NAMES}
    for event in events:
        if isinstance(event, ScheduleFired) and event.job in accepted:
            runs[event.schedule].add(event.due_at)
    return runs


async def _until_all_run(log: AioLog, topics: Topics) -> float:
    """Until each schedule has begun a run that became due after now, which is returned: runs begin in order, so all before have, too."""
    since = CLOCK.wall()
    async with asyncio.timeout(CONVERGE_SECONDS):
        while not all(max(due, default=0.0) > since for due in _runs(await _history(log, topics)).values()):
            await CLOCK.sleep(LOOK_SECONDS)
    return since


async def _judge(log: AioLog, topics: Topics, declared: dict[str, float], begun: float) -> None:
    """`begun`: what became due before that has begun."""
    async with asyncio.timeout(CONVERGE_SECONDS):
        while True:
            values = [v for part in (await _read(log, topics.results, topics.partitions("other"))).values() for _, v in part]
            results = {(result := Result.model_validate_json(value)).job: result for value in values}
            events = await _history(log, topics)
            accepted = Counter(event.job for event in events if isinstance(event, JobAccepted))
            if set(results) == set(accepted):
                break
            await CLOCK.sleep(LOOK_SECONDS)
    runs = _runs(events)
    assert set(accepted.values()) == {1}, "a run was accepted twice"
    assert sum(map(len, runs.values())) == len(accepted)
    for name, since in declared.items():
        due = {float(t) for t in range(int(since) + 1, int(begun)) if t % PERIOD == 0 and t > since}
        left_out = due - runs[name]
        assert not left_out, f"{name}: left out {sorted(left_out)}"
    assert {result.status.value for result in results.values()} == {"succeeded"}


async def test_each_run_once_though_planners_are_killed(cluster: StartCluster) -> None:
    """Nothing left out, nothing twice, every run has its result."""
    started = await asyncio.to_thread(cluster, "schedules", copies={"planner": 2})
    log, topics = AioLog(started.servers, CLOCK), started.topics
    body = {"cron": f"*/{PERIOD} * * * * *", "missed": "all", "job": {"prompt": "tick"}}
    declared: dict[str, float] = {}
    async with aiohttp.ClientSession(started.url) as session:
        for name in NAMES:
            async with session.put(f"/v1/schedules/{name}", json=body) as response:
                assert response.status == 200, await response.text()
                declared[name] = (await response.json())["since"]
        await _until_all_run(log, topics)
        for planner, offset in (("planner", 0.0), ("planner-2", 0.02)):
            await _kill_and_restart(started, planner, offset)
            begun = await _until_all_run(log, topics)
        for name in NAMES:
            async with session.delete(f"/v1/schedules/{name}") as response:
                assert response.status == 204
    await _judge(log, topics, declared, begun)
