"""`python -m infra.lab.bench.backlog --jobs N --bytes B`: does memory stay flat while N jobs of B bytes are queued?

Five services as processes on a real Kafka, one worker with the in-process backend (no model: simulated, it says so). First a warm-up
fills every bounded queue once: the most memory that a service has while it works that off is what N jobs are compared with. Then N jobs
go onto `jobs.batch` as fast as Kafka takes them, while the resident memory of each service is read every second, and on until the queue
is empty or `--observe` seconds have passed. Each repeat has a cluster of its own, on one broker. Exit code 1 when a service grew by more
than the bound in any of them, or when nothing was left waiting (then it proves nothing).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import uvloop

from infra.lab.bench import machine
from infra.lab.bench.bare import new_producer
from infra.lab.bench.figures import Budget, Figures, Spreads, most_of
from infra.lab.bench.local import IN_PROCESS, local_cluster, started_broker
from infra.lab.bench.outcome import Outcome, bench_options
from infra.lab.bench.processes import resident_bytes
from infra.native.cluster import LocalCluster
from infra.native.errors import NativeError
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Admin, Consumer, TopicPartition
from shared.services import group_of

MIB = 1024 * 1024
GROWTH_MIB = 16.0
"""Allocator noise and caches of code that the warm-up did not reach; a queue that holds jobs needs hundreds for a million."""
BUDGETS: tuple[Budget[Spreads], ...] = (
    Budget("growth of any service, in any run", "MiB", most_of("largest_growth_mib"), at_most=GROWTH_MIB),
)
WARM_UP_JOBS = 20_000
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

    def add(self, at: float, waiting: int, pids: dict[str, int | None]) -> None:
        self.seconds.append(round(at, 2))
        self.waiting.append(waiting)
        for name, pid in pids.items():
            self.memory.setdefault(name, []).append(round(resident_bytes(pid or 0) / MIB, 1))

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


async def measure(cluster: LocalCluster, jobs: int, size: int, observe_seconds: float, warm_up_jobs: int) -> tuple[Samples, Samples, float]:
    """Samples of the warm-up and of the queue, and the seconds that queueing took."""
    async with _queue(cluster) as queue:
        warm, _ = await _watched(queue, warm_up_jobs, size, DRAIN_SECONDS)
        if warm.waiting[-1]:
            raise click.ClickException("the warm-up did not end")
        return warm, *await _watched(queue, jobs, size, observe_seconds)


async def _watched(queue: Queue, jobs: int, size: int, observe_seconds: float) -> tuple[Samples, float]:
    """Queue `jobs` and look on, until nothing waits or `observe_seconds` after the last was queued."""
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


async def _run(cluster: LocalCluster, jobs: int, size: int, observe: float, warm_up_jobs: int) -> tuple[Figures, Samples]:
    """Raises click.ClickException when too few jobs waited to show anything."""
    warm, samples, filled = await measure(cluster, jobs, size, observe, warm_up_jobs)
    most = max(samples.waiting)
    if most < jobs // 10:
        raise click.ClickException(f"never more than {most} jobs waited: this proves nothing; queue more")
    return {"queued_seconds": round(filled, 1), "most_waiting": float(most), **samples.memory_figures(warm)}, samples


@click.command(context_settings={"show_default": True})
@click.option("--jobs", type=click.IntRange(1), default=1_000_000, help="To be queued.")
@click.option("--bytes", "size", type=click.IntRange(0, MOST_JOB_BYTES), default=0, help="Of each job's prompt, beyond a few words.")
@click.option("--observe", type=click.FloatRange(0), default=60.0, help="Seconds to look on after they are queued.")
@click.option("--warm-up", "warm_up_jobs", type=click.IntRange(1), default=WARM_UP_JOBS, help="Jobs that fill every bounded queue once.")
@bench_options("Of everything, each on a cluster of its own.")
def main(*, jobs: int, size: int, observe: float, warm_up_jobs: int, repeats: int, servers: str | None, json_file: Path | None) -> None:
    """Memory of every service while JOBS jobs are queued."""
    facts = machine.facts()
    runs: list[Figures] = []
    samples: list[dict[str, Any]] = []
    try:
        with started_broker(servers) as kafka:
            for _ in range(repeats):
                with local_cluster("backlog", kafka, nodes=[IN_PROCESS]) as cluster:
                    found, seen = uvloop.run(_run(cluster, jobs, size, observe, warm_up_jobs))
                runs.append(found)
                samples.append(asdict(seen))
    except NativeError as error:
        raise click.ClickException(str(error)) from error
    options = {"jobs": jobs, "bytes": size, "observe_seconds": observe, "warm_up_jobs": warm_up_jobs, "repeats": repeats}
    simulated = "the worker's answers are simulated (in-process backend, no model)"
    Outcome("backlog", simulated, facts, options, runs, BUDGETS, {"samples": samples}).end(json_file)


if __name__ == "__main__":
    main()
