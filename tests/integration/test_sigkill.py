"""The promise: SIGKILL of any single service process while 500 jobs run loses nothing and doubles nothing.

What: 500 jobs (440 produced straight onto Kafka, 60 callers that wait over REST) run on two nodes; one process is killed and, as a
supervisor would, started again. All 500 end with exactly one result each, and no caller hangs beyond the lease time.
How: real Kafka, real processes, one cluster for all victims; after each `tutti verify`'s checker reads everything that was written.

    jobs ──► planner ──► router ──► worker ──► node (simulated)         kill -9 one of them, in the middle
               ▲                      │
               └────── outcomes ◄─────┘        then: 500 results, 500 settle events, the same bytes
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from infra.native.cluster import LocalCluster
from infra.verify.laws import LOSSES
from infra.verify.reading import scope_of, verify
from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(180)]

QUEUED, CALLERS = 440, 60
LEASE_SECONDS = 8.0
HANG_SECONDS = 20.0
"""The default lease time. Here leases are shorter, so that the test is; a member's session (10 s) is what a killed planner costs."""
CLOCK = SystemClock()
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


async def _kill_and_restart(cluster: LocalCluster, victim: str) -> None:
    await asyncio.sleep(1.5)  # noqa: TID251  the kill must come in the middle of the work
    service = cluster.services[victim]
    service.daemon.kill()
    service.start()


async def _scenario(cluster: LocalCluster, servers: str, victim: str) -> tuple[Calls, int]:
    """What callers saw, and how many jobs have ended, each once."""
    log, calls = AioLog(servers, CLOCK), Calls()
    before = (await verify(log, await scope_of(log, cluster.topics), CLOCK)).counts.accepted
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        work = [asyncio.create_task(_call(session, cluster.url, n, calls)) for n in range(CALLERS)]
        await _produce(log, cluster)
        await _kill_and_restart(cluster, victim)
        await asyncio.gather(*work)
    # Whether a caller's job was accepted before its ingress died only history knows; what it accepted must end.
    deadline = time.perf_counter() + 90
    while (report := await verify(log, await scope_of(log, cluster.topics, settled=True), CLOCK)).violations:
        assert not report.findings.keys() - LOSSES, report.as_json()
        assert time.perf_counter() < deadline, report.as_json()
    await log.close()
    assert report.counts.accepted >= before + QUEUED + calls.answered
    return calls, report.counts.settled.total() - before


@pytest.fixture(scope="module")
def running(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One cluster that loses a process in each test."""
    environment = {"TUTTI_PLANNER__LEASE_SECONDS": str(LEASE_SECONDS), "TUTTI_WORKER__SLOTS": "4"}
    speed = ("--models", "small:0.3", "--set", "num_parallel=4", "--set", "decode_gb_per_second=300")
    simulator = ("--profile", "instant", *speed)
    with LocalCluster(kafka, "kill", tmp_path_factory.mktemp("kill"), workers=2, environment=environment, simulator=simulator) as one:
        yield one
        print(one.log_ends())


@pytest.mark.parametrize("victim", VICTIMS)
def test_every_job_ends_once(running: LocalCluster, kafka: str, victim: str) -> None:
    """All jobs end, each once, whichever process dies."""
    calls, ended = asyncio.run(_scenario(running, kafka, victim))
    running.services[victim].await_ready()
    print(f"{victim}: {ended} ended, {calls.answered} answered, {calls.broken} connections broken, slowest {max(calls.seconds):.1f} s")
    assert not calls.jobs_failed
    assert calls.broken == 0 or victim == "ingress"
    assert max(calls.seconds) < HANG_SECONDS
    assert ended >= QUEUED + calls.answered
