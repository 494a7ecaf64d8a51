"""`python -m infra.lab.bench.delays --jobs N`: how late are delayed records, and does a kill -9 of the delay service lose any?

Two delay services as processes on a real Kafka, no other service: N records with random due times, 1 to 60 s ahead, go into the tiers;
what arrives on the target topic is read. Half-way one of the services is killed and started again `--down` seconds later. Lateness is the
arrival's timestamp minus the due time, one clock. Each repeat has services, topics and due times of its own, on one broker. Exit code 1
when a record was lost or came early in any of them.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click
import uvloop

from infra.lab.bench import machine
from infra.lab.bench.figures import Budget, Figures, Spreads, most_of, percentile
from infra.lab.bench.local import started_broker
from infra.lab.bench.outcome import Outcome, bench_options
from infra.native import ports
from infra.native.errors import NativeError
from infra.native.paths import StackHome
from infra.native.services import ServiceProcess
from infra.native.topics import delete_topics, ensure_topics
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, TopicPartition
from shared.processing.delays import build_delayed
from shared.topics import Topics, TopicSettings

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
LEAD_SECONDS = 5.0
"""Due times count from so long after the beginning, and from later where producing takes longer."""
EARLY_SECONDS = 0.002
"""Timestamps are whole milliseconds."""
PATIENCE_SECONDS = 60.0
"""Beyond the last due time, before what has not come counts as lost."""
BUDGETS: tuple[Budget[Spreads], ...] = (
    Budget("lost, in any run", "records", most_of("lost"), at_most=0.0),
    Budget("early, in any run", "records", most_of("early"), at_most=0.0),
)
_BATCH = 2_000
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is put in, and how long the killed service is away."""

    jobs: int
    seed: int
    down_seconds: float


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
            raise click.ClickException(f"Kafka did not take {len(failed)} records: {failed[0]}")
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


async def _measure(servers: str, topics: Topics, services: list[ServiceProcess], plan: Plan) -> Figures:
    random, log = Random(plan.seed), AioLog(servers, _CLOCK)
    # About 20,000 records a second go in; what is due meanwhile would be late before it is there.
    begin = _CLOCK.wall() + LEAD_SECONDS + plan.jobs / 20_000
    seen = Seen([begin + random.uniform(SHORTEST_SECONDS, LONGEST_SECONDS) for _ in range(plan.jobs)])
    killed_at = begin + LONGEST_SECONDS / 2
    try:
        started = _CLOCK.wall()
        await _put(log, topics, seen.due)
        produced_in = _CLOCK.wall() - started
        reading = asyncio.create_task(_read(log, topics, seen, begin + LONGEST_SECONDS + PATIENCE_SECONDS))
        down_until = await _kill(services[0], killed_at, plan.down_seconds)
        await reading
    finally:
        await log.close()
    return {**seen.figures(killed_at, down_until), "produced_in_s": round(produced_in, 1)}


@click.command(context_settings={"show_default": True})
@click.option("--jobs", type=click.IntRange(min=1), default=100_000, help="Delayed records.")
@click.option("--seed", type=int, default=1, help="Of the due times; the next repeat's is one higher.")
@click.option("--down", "down_seconds", type=float, default=3.0, help="Seconds until the killed service is started again.")
@bench_options("Of everything.")
def main(*, jobs: int, seed: int, down_seconds: float, repeats: int, servers: str | None, json_file: Path | None) -> None:
    """Measure how late delayed records are."""
    facts = machine.facts()
    runs: list[Figures] = []
    try:
        with started_broker(servers) as kafka:
            for repeat in range(repeats):
                runs.append(_run(kafka, repeat, Plan(jobs, seed + repeat, down_seconds)))
                click.echo("  " + ", ".join(f"{name} {value:g}" for name, value in runs[-1].items()), err=True)
    except NativeError as error:
        raise click.ClickException(error.message) from error
    span = f"{SHORTEST_SECONDS:g}-{LONGEST_SECONDS:g} s"
    options = {"jobs": jobs, "due_within": span, "down_seconds": down_seconds, "seed": seed, "repeats": repeats}
    simulated = "nothing is simulated; delay services alone, one of two killed -9 half-way"
    Outcome("delays", simulated, facts, options, runs, BUDGETS).end(json_file)


def _run(servers: str, repeat: int, plan: Plan) -> Figures:
    topics = Topics(TopicSettings(prefix=f"bench-delays-{os.getpid()}-{repeat}-"))
    environment = {"TUTTI_KAFKA_SERVERS": servers, "TUTTI_TOPICS__PREFIX": topics.settings.prefix, "TUTTI_LOG_LEVEL": "warning"}
    with tempfile.TemporaryDirectory(prefix="tutti-delays-") as made:
        home = StackHome(Path(made))
        services = [
            ServiceProcess("delay", home, port, environment, str(n), dies_with_parent=True) for n, port in enumerate(ports.free_ports(2), 1)
        ]
        ensure_topics(servers, topics)
        try:
            for service in services:
                service.start()
            for service in services:
                service.await_ready()
            return uvloop.run(_measure(servers, topics, services, plan))
        finally:
            for service in services:
                service.stop(5.0)
            delete_topics(servers, topics)


if __name__ == "__main__":
    main()
