"""The promise: a planner that was paused for 60 s and wakes up as a zombie accepts nothing.

What: two planners work off slow jobs; one is stopped (SIGSTOP) in the middle, for twelve times the session timeout. The other takes its
partitions over and ends every job. Then the first one wakes with live jobs, leases and timers that are all overdue.
How: real Kafka, real processes; the history checker judges the log: the zombie's appends are stale, nothing came of them.

    planner ──SIGSTOP──────────────── 60 s ───────────────SIGCONT── appends, fenced ── learns that it is no owner
    planner-2 ──────── takes over after 5 s, ends all jobs ───────────────────────────────────────────────────►
"""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from infra.native.cluster import LocalCluster
from infra.verify.reading import scope_of, verify
from infra.verify.report import Report
from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(420)]

JOBS = 300
PAUSE_SECONDS = 60.0
"""At least: the zombie sleeps on until its partitions' jobs have ended, which on a busy machine takes longer."""
PATIENCE_SECONDS = 150.0
CLOCK = SystemClock()


async def _produce(log: AioLog, cluster: LocalCluster, first: int, count: int) -> None:
    producer = await log.producer(client_id="test")
    topics = cluster.topics.all_jobs()
    jobs = [Message(topics[n % 3], b'{"prompt": "queued %d"}' % n, b"%d" % n) for n in range(first, first + count)]
    assert not [sent for sent in await producer.send_many(jobs) if isinstance(sent, Exception)]
    await producer.close()


async def _ended(log: AioLog, cluster: LocalCluster, jobs: int, seconds: float) -> Report:
    """The checker's report once this many jobs have ended."""
    deadline = time.perf_counter() + seconds
    while True:
        report = await verify(log, await scope_of(log, cluster.topics), CLOCK)
        if sum(report.counts.settled.values()) >= jobs:
            return report
        assert time.perf_counter() < deadline, f"{report.counts.settled} of {jobs} jobs ended"
        await CLOCK.sleep(3.0)


async def _scenario(cluster: LocalCluster, servers: str) -> tuple[Report, Report]:
    """(as the zombie woke, at the end)"""
    log = AioLog(servers, CLOCK)
    zombie = cluster.services["planner"].daemon
    await _produce(log, cluster, 0, JOBS)
    await CLOCK.sleep(1.0)  # in the middle of the work
    zombie.signal(signal.SIGSTOP)
    stopped = time.perf_counter()
    await _produce(log, cluster, JOBS, JOBS)
    asleep = await _ended(log, cluster, 2 * JOBS, PATIENCE_SECONDS)
    await CLOCK.sleep(PAUSE_SECONDS - (time.perf_counter() - stopped))
    zombie.signal(signal.SIGCONT)
    await _produce(log, cluster, 2 * JOBS, JOBS)
    await _ended(log, cluster, 3 * JOBS, PATIENCE_SECONDS)
    cluster.services["planner"].await_ready(60)
    final = await verify(log, await scope_of(log, cluster.topics, settled=True), CLOCK)
    await log.close()
    return asleep, final


def test_a_planner_that_wakes_after_a_minute_accepts_nothing(cluster: StartCluster, kafka: str) -> None:
    """Every job ends once; what the zombie wrote is stale; it joins again and works."""
    speed = ("--models", "small:0.3", "--set", "num_parallel=4", "--set", "decode_gb_per_second=100")
    one = cluster("zombie", workers=2, copies={"planner": 2}, simulator=("--profile", "instant", *speed))
    asleep, final = asyncio.run(_scenario(one, kafka))
    print(f"epochs {asleep.counts.epochs} → {final.counts.epochs}, stale events {asleep.counts.stale_events} → {final.counts.stale_events}")
    assert asleep.counts.epochs > one.topics.settings.home_partitions, "nobody took the paused planner's partitions"
    assert final.as_json()["findings"] == []
    assert sum(final.counts.settled.values()) == 3 * JOBS
    assert set(final.counts.settled) == {"succeeded"}
