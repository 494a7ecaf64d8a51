"""Does memory stay flat while N jobs of B bytes are queued?

Five services as processes on a real Kafka, one worker with the in-process backend (no model: simulated, it says so). First a warm-up
fills every bounded queue once: the most memory that a service has while it works that off is what N jobs are compared with. Then N jobs
go onto `jobs.batch` as fast as Kafka takes them, while the resident memory of each service is read every second, and on until the queue
is empty or `--observe` seconds have passed. Each run has a cluster of its own. When nothing was left waiting it proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from infra.lab.bench import machine
from infra.lab.bench.bare import new_producer
from infra.lab.bench.figures import MIB, Budget, Figures, most_of
from infra.lab.bench.runner import IN_PROCESS, Bench, Lab, Unmeasured, option
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Admin, Consumer, TopicPartition
from shared.services import group_of

GROWTH_MIB = 16.0
"""Allocator noise and caches of code that the warm-up did not reach; a queue that holds jobs needs hundreds for a million."""
SAMPLE_SECONDS = 1.0
DRAIN_SECONDS = 300.0
IN_FLIGHT, IN_FLIGHT_BYTES = 10_000, 32 * MIB
"""That this bench itself has sent and Kafka has not acknowledged."""
MOST_JOB_BYTES = 64_000
_CLOCK = SystemClock()


@dataclass(slots=True)
class Samples:
    """What was seen, once a sample. `memory`: service → MiB."""

    seconds: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=dict)

    def add(self, at: float, waiting: int, pids: Mapping[str, int | None]) -> None:
        self.seconds.append(round(at, 2))
        self.waiting.append(waiting)
        for name, pid in pids.items():
            self.memory.setdefault(name, []).append(round(machine.resident_bytes(pid) / MIB, 1))

    def memory_figures(self, warm: Samples) -> dict[str, float]:
        """Of each service the most MiB in the warm-up, the last and the most of these samples; how much that is above the warm-up's."""
        found: dict[str, float] = {}
        for name, seen in self.memory.items():
            most, before = max(seen), max(warm.memory[name])
            found |= {f"{name}.warm_mib": before, f"{name}.last_mib": seen[-1], f"{name}.most_mib": most}
            found[f"{name}.growth_mib"] = round(max(0.0, most - before), 1)
        return {**found, "largest_growth_mib": max(value for name, value in found.items() if name.endswith(".growth_mib"))}


@dataclass(slots=True)
class Queue:
    """`jobs.batch` of the cluster under test."""

    cluster: LocalCluster
    consumer: Consumer
    admin: Admin

    @property
    def topic(self) -> str:
        return self.cluster.topics.jobs(PriorityClass.BATCH)

    async def waiting(self) -> int:
        """Records that the planners' group has not committed past."""
        parts = [TopicPartition(self.topic, number) for number in range(self.cluster.topics.settings.home_partitions)]
        ends = await self.consumer.end_offsets(parts)
        committed = await self.admin.group_offsets(group_of("planner", self.cluster.prefix))
        return sum(end - committed.get(part, 0) for part, end in ends.items())

    async def fill(self, jobs: int, size: int) -> None:
        """As fast as Kafka takes them; each of about `size` bytes."""
        padding, most = b"x" * size, min(IN_FLIGHT, IN_FLIGHT_BYTES // max(1, size))
        producer = new_producer(self.cluster.servers)
        await producer.start()
        try:
            pending: list[asyncio.Future[Any]] = []
            for number in range(jobs):
                pending.append(await producer.send(self.topic, b'{"prompt":"job %d of a long queue %b"}' % (number, padding)))
                if len(pending) >= most:
                    await asyncio.gather(*pending)
                    pending.clear()
            await asyncio.gather(*pending)
        finally:
            await producer.stop()


@asynccontextmanager
async def _queue(cluster: LocalCluster) -> AsyncIterator[Queue]:
    log = AioLog(cluster.servers, _CLOCK)
    consumer, admin = await log.consumer(client_id="backlog-bench"), await log.admin()
    try:
        yield Queue(cluster, consumer, admin)
    finally:
        await consumer.close()
        await admin.close()
        await log.close()


async def _watched(queue: Queue, jobs: int, size: int, observe_seconds: float) -> tuple[Samples, float]:
    """Queue `jobs` and look on, until nothing waits or `observe_seconds` after the last was queued; and the seconds that queueing took."""
    samples, began = Samples(), _CLOCK.monotonic()
    samples.add(0.0, 0, queue.cluster.pids())
    filling, filled = asyncio.create_task(queue.fill(jobs, size)), 0.0
    while not filling.done() or (samples.waiting[-1] and samples.seconds[-1] < filled + observe_seconds):
        await _CLOCK.sleep(SAMPLE_SECONDS)
        now = _CLOCK.monotonic() - began
        filled = filled if filling.done() and filled else now
        samples.add(now, await queue.waiting(), queue.cluster.pids())
        click.echo(f"  {now:5.0f} s  {samples.waiting[-1]:>9} waiting", err=True)
    await filling
    return samples, filled


async def _run(lab: Lab, cluster: LocalCluster, *, jobs: int, size: int, observe: float, warm_up: int) -> Figures:
    async with _queue(cluster) as queue:
        warm, _ = await _watched(queue, warm_up, size, DRAIN_SECONDS)
        if warm.waiting[-1]:
            raise Unmeasured("the warm-up did not end")
        samples, filled = await _watched(queue, jobs, size, observe)
    lab.detail("samples", asdict(samples))
    if (most := max(samples.waiting)) < jobs // 10:
        raise Unmeasured(f"never more than {most} jobs waited: this proves nothing; queue more")
    return {"queued_seconds": round(filled, 1), "most_waiting": float(most), **samples.memory_figures(warm)}


def measure(lab: Lab, repeat: int, *, jobs: int, size: int, observe: float, warm_up: int) -> Figures:
    """Memory of every service while JOBS jobs are queued."""
    with lab.cluster("backlog", nodes=[IN_PROCESS]) as cluster:
        return lab.run(_run(lab, cluster, jobs=jobs, size=size, observe=observe, warm_up=warm_up))


BENCH = Bench(
    measure,
    "the worker's answers are simulated (in-process backend, no model)",
    (Budget("growth of any service, in any run", "MiB", most_of("largest_growth_mib"), at_most=GROWTH_MIB),),
    (
        option("jobs", 1_000_000, "To be queued.", type=click.IntRange(1)),
        click.Option(["--bytes", "size"], type=click.IntRange(0, MOST_JOB_BYTES), default=0, help="Of each prompt, beyond a few words."),
        option("observe", 60.0, "Seconds to look on after they are queued.", type=click.FloatRange(0)),
        option("warm-up", 20_000, "Jobs that fill every bounded queue once.", type=click.IntRange(1)),
    ),
    quick={"jobs": 20_000, "observe": 5.0},
)
