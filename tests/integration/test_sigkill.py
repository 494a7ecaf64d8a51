"""The promise: SIGKILL of any single service process while 500 jobs run loses nothing and doubles nothing.

What: 500 jobs (440 produced straight onto Kafka, 60 callers that wait over REST) run on two nodes; one process is killed and, as a
supervisor would, started again. All 500 end with exactly one result each, and no caller hangs beyond the lease time.
How: real Kafka, real processes; afterwards `results` and `job-events` are read whole and judged by the definition of a valid event.

    jobs ──► planner ──► router ──► worker ──► node (simulated)         kill -9 one of them, in the middle
               ▲                      │
               └────── outcomes ◄─────┘        then: 500 results, 500 settle events, the same bytes
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts.event import EVENT, JobAccepted, JobSettled, PlannerStarted
from shared.contracts.result import Result
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, TopicPartition
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.alone, pytest.mark.timeout(180)]

QUEUED, CALLERS = 440, 60
LEASE_SECONDS = 8.0
HANG_SECONDS = 20.0
"""The default lease time. Here leases are shorter, so that the test is; a member's session (10 s) is what a killed planner costs."""
VICTIMS = ("planner", "router", "worker-1", "delay", "ingress")


@dataclass
class Calls:
    """What REST callers saw. A connection that broke with its ingress is an answer at once, not a hang."""

    answered: int = 0
    broken: int = 0
    jobs_failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


async def _call(session: aiohttp.ClientSession, url: str, number: int, calls: Calls) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": f"caller {number}"}]}
    started = time.perf_counter()
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            text = await response.text()
            if response.status == 200:
                calls.answered += 1
            else:
                calls.jobs_failed.append(f"{response.status} {text[:200]}")
    except aiohttp.ClientError:
        calls.broken += 1
    calls.seconds.append(time.perf_counter() - started)


async def _produce(log: AioLog, cluster: LocalCluster) -> None:
    producer = await log.producer(client_id="test")
    topics = [cluster.topics.all_jobs()[n % 3] for n in range(QUEUED)]
    sent = await producer.send_many([Message(t, b'{"prompt": "queued %d"}' % n, b"%d" % n) for n, t in enumerate(topics)])
    assert not [s for s in sent if isinstance(s, Exception)]
    await producer.close()


async def _read_whole(log: AioLog, topic: str, partitions: int) -> list[Any]:
    """Every record that lies in the topic now."""
    reader = await log.consumer(client_id="test-reader", reset="earliest")
    numbers = [TopicPartition(topic, n) for n in range(partitions)]
    reader.assign(numbers)
    ends = await reader.end_offsets(numbers)
    records: list[Any] = []
    while any([await reader.position(p) < ends[p] for p in numbers]):
        for batch in (await reader.poll(timeout_seconds=1)).values():
            records.extend(batch)
    await reader.close()
    return records


async def _results(log: AioLog, cluster: LocalCluster) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = defaultdict(set)
    for record in await _read_whole(log, cluster.topics.results, cluster.topics.settings.other_partitions):
        found[Result.model_validate_json(record.value).job].add(record.value)
    return found


@dataclass
class History:
    """What the valid events say, by the definition of ARCHITECTURE, planner protocol."""

    accepted: set[str] = field(default_factory=set)
    settled: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))


async def _history(log: AioLog, cluster: LocalCluster) -> History:
    history, epochs = History(), dict[int, int]()
    for record in await _read_whole(log, cluster.topics.job_events, cluster.topics.settings.home_partitions):
        event = EVENT.validate_json(record.value)
        if isinstance(event, PlannerStarted):
            epochs[record.partition] = record.offset
        elif event.epoch != epochs.get(record.partition):
            continue
        elif isinstance(event, JobAccepted):
            history.accepted.add(event.job)
        elif isinstance(event, JobSettled):
            history.settled[event.job].append(event.result.to_bytes())
    return history


async def _kill_and_restart(cluster: LocalCluster, victim: str) -> None:
    await asyncio.sleep(1.5)  # noqa: TID251  the kill must come in the middle of the work
    service = cluster.services[victim]
    service.daemon.kill()
    service.start()


async def _scenario(cluster: LocalCluster, servers: str, victim: str) -> tuple[Calls, dict[str, set[bytes]], dict[str, list[bytes]]]:
    log, calls = AioLog(servers, SystemClock()), Calls()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        work = [asyncio.create_task(_call(session, cluster.url, n, calls)) for n in range(CALLERS)]
        await _produce(log, cluster)
        await _kill_and_restart(cluster, victim)
        await asyncio.gather(*work)
    # Whether a caller's job was accepted before its ingress died only history knows; what it accepted must end.
    deadline = time.perf_counter() + 90
    while True:
        results = await _results(log, cluster)
        history = await _history(log, cluster)
        if len(history.accepted) >= QUEUED + calls.answered and history.accepted == set(results) == set(history.settled):
            break
        assert time.perf_counter() < deadline, f"{len(history.accepted)} jobs accepted, {len(results)} ended after 90 s"
    await log.close()
    return calls, results, history.settled


@pytest.mark.parametrize("victim", VICTIMS)
def test_every_job_ends_once(cluster: StartCluster, kafka: str, victim: str) -> None:
    """All jobs end, each once, whichever process dies."""
    environment = {"TUTTI_PLANNER__LEASE_SECONDS": str(LEASE_SECONDS), "TUTTI_WORKER__SLOTS": "4"}
    speed = ("--models", "small:0.3", "--set", "num_parallel=4", "--set", "decode_gb_per_second=300")
    simulator = ("--profile", "instant", *speed)
    one = cluster(f"kill-{victim}", workers=2, environment=environment, simulator=simulator)
    calls, results, settled = asyncio.run(_scenario(one, kafka, victim))
    print(f"{victim}: {calls.answered} answered, {calls.broken} connections broken, slowest {max(calls.seconds):.1f} s")
    assert not calls.jobs_failed
    assert calls.broken == 0 or victim == "ingress"
    assert max(calls.seconds) < HANG_SECONDS
    assert {job: len(values) for job, values in results.items() if len(values) != 1} == {}
    assert {job: len(events) for job, events in settled.items() if len(events) != 1} == {}
    assert {job: [*values] for job, values in results.items()} == dict(settled)
