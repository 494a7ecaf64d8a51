"""How late are delayed records, and does a kill -9 of the delay service lose any?

Two delay services as processes on a real Kafka, no other service: N records with random due times, 1 to 60 s ahead, go into the tiers;
what arrives on the target topic is read. Half-way one of the services is killed and started again `--down` seconds later. Lateness is the
arrival's timestamp minus the due time, one clock. Each run has services, topics and due times of its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

import click

from infra.lab.bench.figures import Budget, Figures, most_of, percentile
from infra.lab.bench.runner import NO_SERVICE, Bench, Lab, Unmeasured, option
from infra.native.cluster import LocalCluster
from infra.native.services import ServiceProcess
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, TopicPartition
from shared.processing.delays import build_delayed
from shared.topics import Topics

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
LEAD_SECONDS = 5.0
"""Due times count from so long after the beginning, and from later where producing takes longer."""
EARLY_SECONDS = 0.002
"""Timestamps are whole milliseconds."""
PATIENCE_SECONDS = 60.0
"""Beyond the last due time, before what has not come counts as lost."""
_BATCH = 2_000
_CLOCK = SystemClock()


@dataclass(slots=True)
class Seen:
    """What arrived."""

    due: list[float]
    lateness: dict[int, float] = field(default_factory=dict)
    repeated: int = 0

    def add(self, number: int, at: float) -> None:
        if number in self.lateness:
            self.repeated += 1
        else:
            self.lateness[number] = at - self.due[number]

    def figures(self, killed_at: float, down_until: float) -> dict[str, float]:
        """Of all, and of those that were due before the kill."""
        every = sorted(self.lateness.values())
        calm = sorted(late for number, late in self.lateness.items() if self.due[number] < killed_at - 1.0)
        return {
            "records": len(self.due),
            "lost": len(self.due) - len(every),
            "repeated": self.repeated,
            "early": sum(late < -EARLY_SECONDS for late in every),
            **_spread("late", every),
            **_spread("late_before_kill", calm),
            "down_s": round(down_until - killed_at, 1),
        }


def _spread(name: str, found: list[float]) -> dict[str, float]:
    if not found:
        return {}
    return {
        f"{name}_{what}_s": round(value, 4)
        for what, value in (("p50", percentile(found, 0.5)), ("p99", percentile(found, 0.99)), ("max", found[-1]))
    }


async def _put(log: AioLog, topics: Topics, due: list[float]) -> None:
    target = topics.jobs(PriorityClass.STANDARD)
    homes = topics.settings.home_partitions
    producer = await log.producer(client_id="bench-delays")
    for start in range(0, len(due), _BATCH):
        numbers = range(start, min(start + _BATCH, len(due)))
        messages = [Message(target, b'{"prompt": "%d"}' % n, b"%d" % n, n % homes) for n in numbers]
        delayed = [build_delayed(topics, m, due[n], _CLOCK.wall()) for n, m in zip(numbers, messages, strict=True)]
        failed = [fate for fate in await producer.send_many(delayed) if isinstance(fate, Exception)]
        if failed:
            raise Unmeasured(f"Kafka did not take {len(failed)} records: {failed[0]}")
    await producer.close()


async def _read(log: AioLog, topics: Topics, seen: Seen, until: float) -> None:
    reader = await log.consumer(client_id="bench-delays-reader")
    target = topics.jobs(PriorityClass.STANDARD)
    reader.assign([TopicPartition(target, n) for n in range(topics.settings.home_partitions)])
    quiet = 0
    while _CLOCK.wall() < until and (len(seen.lateness) < len(seen.due) or quiet < 3):
        batches = await reader.poll(timeout_seconds=1.0)
        quiet = 0 if batches else quiet + 1
        for records in batches.values():
            for record in records:
                seen.add(int(record.key or b"0"), record.timestamp / 1000)
    await reader.close()


async def _kill(service: ServiceProcess, at: float, down_seconds: float) -> float:
    """SIGKILL at `at`, a new start afterwards; when it was started."""
    await _CLOCK.sleep(max(0.0, at - _CLOCK.wall()))
    await asyncio.to_thread(service.daemon.kill)
    await _CLOCK.sleep(down_seconds)
    await asyncio.to_thread(service.start)
    return _CLOCK.wall()


async def _run(cluster: LocalCluster, jobs: int, seed: int, down: float) -> Figures:
    random, log, topics = Random(seed), AioLog(cluster.servers, _CLOCK), cluster.topics
    # About 20,000 records a second go in; what is due meanwhile would be late before it is there.
    begin = _CLOCK.wall() + LEAD_SECONDS + jobs / 20_000
    seen = Seen([begin + random.uniform(SHORTEST_SECONDS, LONGEST_SECONDS) for _ in range(jobs)])
    killed_at = begin + LONGEST_SECONDS / 2
    try:
        started = _CLOCK.wall()
        await _put(log, topics, seen.due)
        produced_in = _CLOCK.wall() - started
        reading = asyncio.create_task(_read(log, topics, seen, begin + LONGEST_SECONDS + PATIENCE_SECONDS))
        down_until = await _kill(cluster.services["delay"], killed_at, down)
        await reading
    finally:
        await log.close()
    return {**seen.figures(killed_at, down_until), "produced_in_s": round(produced_in, 1)}


def measure(lab: Lab, repeat: int, *, jobs: int, seed: int, down: float) -> Figures:
    """Measure how late delayed records are, 1 to 60 s ahead."""
    with lab.cluster("delays", workers=0, copies={**NO_SERVICE, "delay": 2}) as cluster:
        return lab.run(_run(cluster, jobs, seed + repeat, down))


BENCH = Bench(
    measure,
    "nothing is simulated; delay services alone, one of two killed -9 half-way",
    (
        Budget("lost, in any run", "records", most_of("lost"), at_most=0.0),
        Budget("early, in any run", "records", most_of("early"), at_most=0.0),
    ),
    (
        option("jobs", 100_000, "Delayed records.", type=click.IntRange(1)),
        option("seed", 1, "Of the due times; the next run's is one higher."),
        option("down", 3.0, "Seconds until the killed service is started again.", type=click.FloatRange(0)),
    ),
    quick={"jobs": 1_000},
)
