"""`python -m infra.bench.backlog --jobs N`: does memory stay flat while N jobs are queued?

Five services as processes on a real Kafka, one worker with the in-process backend (no model: simulated, it says so). First a warm-up
fills every bounded queue once: the most memory that a service has while it works that off is what N jobs are compared with. Then N jobs
go onto `jobs.batch` as fast as Kafka takes them, while the resident memory of each service is read every second, and on until the queue
is empty or `--observe` seconds have passed. Exit code 1 when a service grew by more than the bound, or when nothing was left waiting
(then it proves nothing).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import uvloop

from infra.bench import machine, report
from infra.bench.bare import new_producer
from infra.bench.local import IN_PROCESS, local_cluster
from infra.bench.processes import resident_bytes
from infra.native.cluster import LocalCluster
from infra.native.errors import NativeError
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.kafka.aio import AioLog
from shared.kafka.port import Admin, Consumer, TopicPartition

MIB = 1024 * 1024
GROWTH_MIB = 16.0
"""Allocator noise and caches of code that the warm-up did not reach; a queue that holds jobs needs hundreds for a million."""
WARM_UP_JOBS = 20_000
SAMPLE_SECONDS = 1.0
DRAIN_SECONDS = 300.0
IN_FLIGHT = 10_000
_CLOCK = SystemClock()


@dataclass(slots=True)
class Samples:
    """What was seen, once a sample. `memory`: service → MiB."""

    seconds: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=dict)

    def add(self, at: float, waiting: int, pids: dict[str, int | None]) -> None:
        self.seconds.append(round(at, 2))
        self.waiting.append(waiting)
        for name, pid in pids.items():
            self.memory.setdefault(name, []).append(round(resident_bytes(pid or 0) / MIB, 1))

    def verdict(self, warm: Samples) -> dict[str, dict[str, float]]:
        """Service → largest memory in the warm-up, then first, last and largest, MiB; and how much the largest is above the warm-up's."""
        return {
            name: {
                "warm": max(warm.memory[name]),
                "first": seen[0],
                "last": seen[-1],
                "max": max(seen),
                "growth": round(max(0.0, max(seen) - max(warm.memory[name])), 1),
            }
            for name, seen in self.memory.items()
        }


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
        committed = await self.admin.group_offsets(f"{self.cluster.prefix}tutti-planner")
        return sum(end - committed.get(part, 0) for part, end in ends.items())

    async def fill(self, jobs: int) -> None:
        """As fast as Kafka takes them."""
        producer = new_producer(self.cluster.servers)
        await producer.start()
        try:
            pending: list[asyncio.Future[Any]] = []
            for number in range(jobs):
                pending.append(await producer.send(self.topic, b'{"prompt":"job %d of a long queue"}' % number))
                if len(pending) >= IN_FLIGHT:
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


async def measure(cluster: LocalCluster, jobs: int, observe_seconds: float, warm_up_jobs: int) -> tuple[Samples, Samples, float]:
    """Samples of the warm-up and of the queue, and the seconds that queueing took."""
    async with _queue(cluster) as queue:
        warm, _ = await _watched(queue, warm_up_jobs, DRAIN_SECONDS)
        if warm.waiting[-1]:
            raise click.ClickException("the warm-up did not end")
        return warm, *await _watched(queue, jobs, observe_seconds)


async def _watched(queue: Queue, jobs: int, observe_seconds: float) -> tuple[Samples, float]:
    """Queue `jobs` and look on, until nothing waits or `observe_seconds` after the last was queued."""
    samples, began = Samples(), _CLOCK.monotonic()
    samples.add(0.0, 0, queue.cluster.pids())
    filling, filled = asyncio.create_task(queue.fill(jobs)), 0.0
    while not filling.done() or (samples.waiting[-1] and samples.seconds[-1] < filled + observe_seconds):
        await _CLOCK.sleep(SAMPLE_SECONDS)
        now = _CLOCK.monotonic() - began
        filled = filled if filling.done() and filled else now
        samples.add(now, await queue.waiting(), queue.cluster.pids())
        click.echo(f"  {now:5.0f} s  {samples.waiting[-1]:>9} waiting", err=True)
    await filling
    return samples, filled


@click.command(context_settings={"show_default": True})
@click.option("--jobs", type=click.IntRange(1), default=1_000_000, help="To be queued.")
@click.option("--observe", type=click.FloatRange(0), default=60.0, help="Seconds to look on after they are queued.")
@click.option("--warm-up", "warm_up_jobs", type=click.IntRange(1), default=WARM_UP_JOBS, help="Jobs that fill every bounded queue once.")
@click.option("--servers", metavar="HOST:PORT", help="Use this Kafka instead of starting one.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything here.")
def main(*, jobs: int, observe: float, warm_up_jobs: int, servers: str | None, json_file: Path | None) -> None:
    """Memory of every service while JOBS jobs are queued."""
    facts = machine.facts()
    try:
        with local_cluster("backlog", servers, nodes=[IN_PROCESS]) as cluster:
            warm, samples, filled = uvloop.run(measure(cluster, jobs, observe, warm_up_jobs))
    except NativeError as error:
        raise click.ClickException(str(error)) from error
    verdict, most = samples.verdict(warm), max(samples.waiting)
    click.echo(f"{jobs} jobs queued in {filled:.0f} s, at most {most} unread at once; the worker's answers are simulated (no model)")
    columns = ("warm", "first", "last", "max", "growth")
    click.echo("MiB".ljust(12) + "".join(f"{column:>8}" for column in columns))
    for name, found in verdict.items():
        click.echo(name.ljust(12) + "".join(f"{found[column]:>8}" for column in columns))
    grown = {name: found["growth"] for name, found in verdict.items() if found["growth"] > GROWTH_MIB}
    if json_file is not None:
        document = {
            "machine": facts,
            "simulated": "in-process backend, no model",
            "jobs": jobs,
            "warm_up_jobs": warm_up_jobs,
            "queued_seconds": round(filled, 1),
            "most_waiting": most,
            "growth_bound_mib": GROWTH_MIB,
            "services": verdict,
            "flat": not grown,
            "samples": {"seconds": samples.seconds, "waiting": samples.waiting, "memory_mib": samples.memory},
        }
        report.write(json_file, document)
    if most < jobs // 10:
        raise click.ClickException(f"never more than {most} jobs waited: this proves nothing; queue more")
    if grown:
        raise click.ClickException(f"memory is not flat: {grown}")


if __name__ == "__main__":
    main()
