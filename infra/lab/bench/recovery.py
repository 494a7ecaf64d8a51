"""A planner with N live jobs is killed -9; how soon does the next one have them?

Each job is a chain of two steps. The first is answered (in-process backend, no model: simulated); the second asks for a model that no node
has, so that every job stays live in the middle of its history. Then SIGKILL, and a new planner at once; all runs on one cluster.

    take-over   from its first PlannerStarted in the log to "ready" (every partition replayed and driven on)
    away        from the kill to "ready": Kafka's session timeout is in it (5 s), which a planner cannot shorten
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from infra.lab.bench.bare import new_producer
from infra.lab.bench.figures import MS, Budget, Figures, median_of, most_of
from infra.lab.bench.runner import IN_PROCESS, Bench, Lab, Unmeasured, option
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.event import EVENT, JobAccepted, JobSettled, PlannerStarted, StepAnswered, StepAsked, facts_of
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Consumer, Record, TopicPartition

FILL_SECONDS = 240.0
READY_SECONDS = 60.0
_POLL_SECONDS = 0.5
_CLOCK = SystemClock()
_JOB = json.dumps(
    {
        "prompt": "recovery",
        "pattern": "chain",
        "chain": [
            {"name": "first", "template": "one {input}", "model": "in-process"},
            {"name": "second", "template": "two {first}", "model": "nobody-has-it"},
        ],
    }
).encode()


@dataclass(slots=True)
class History:
    """`job-events` of the cluster under test, folded as far as read."""

    asked: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    accepted: int = 0
    settled: int = 0
    started_ms: list[int] = field(default_factory=list)
    """Timestamps of PlannerStarted records."""

    def fold(self, record: Record) -> None:
        for fact in facts_of(EVENT.validate_json(record.value or b"")):
            if isinstance(fact, PlannerStarted):
                self.started_ms.append(record.timestamp)
            elif isinstance(fact, StepAsked):
                self.asked[fact.step] += 1
            elif isinstance(fact, StepAnswered):
                self.answered += 1
            elif isinstance(fact, JobAccepted):
                self.accepted += 1
            elif isinstance(fact, JobSettled):
                self.settled += 1


async def _read_on(consumer: Consumer, history: History) -> None:
    while batches := await consumer.poll(timeout_seconds=_POLL_SECONDS):
        for records in batches.values():
            for record in records:
                history.fold(record)


async def _fill(cluster: LocalCluster, jobs: int, consumer: Consumer) -> History:
    """Queue the jobs; return when all have asked for their second step."""
    consumer.assign([TopicPartition(cluster.topics.job_events, n) for n in range(cluster.topics.settings.home_partitions)])
    producer = new_producer(cluster.servers)
    await producer.start()
    try:
        for _ in range(jobs):
            await producer.send(cluster.topics.jobs(PriorityClass.BATCH), _JOB)
    finally:
        await producer.stop()
    history, until = History(), _CLOCK.monotonic() + FILL_SECONDS
    while len(history.asked) < 2 * jobs:
        if _CLOCK.monotonic() > until:
            raise Unmeasured(f"only {history.answered} of {jobs} first steps were answered:\n{cluster.log_ends(5)}")
        await _read_on(consumer, history)
    return history


async def _kill_once(cluster: LocalCluster, consumer: Consumer, history: History) -> Figures:
    """The counts are what the new planner wrote in its take-over."""
    planner = cluster.services["planner"]
    asked_before = sum(history.asked.values())
    history.started_ms.clear()
    planner.daemon.kill()
    killed = _CLOCK.monotonic()
    planner.start()
    planner.await_ready(READY_SECONDS)
    away, ready_ms = _CLOCK.monotonic() - killed, _CLOCK.wall() * MS
    await _read_on(consumer, history)
    return {
        "takeover_seconds": (ready_ms - min(history.started_ms)) / MS,
        "away_seconds": away,
        "live_jobs": history.accepted - history.settled,
        "asked_again": sum(history.asked.values()) - asked_before,
        "lost": history.settled,
    }


@contextmanager
def _filled(lab: Lab, jobs: int) -> Iterator[tuple[LocalCluster, Consumer, History]]:
    """The jobs stay live throughout."""
    with lab.cluster("recovery", nodes=[IN_PROCESS], environment={"TUTTI_PLANNER__LIVE_JOBS": str(jobs)}) as cluster:
        log = AioLog(cluster.servers, _CLOCK)
        consumer = lab.run(log.consumer(client_id="recovery-bench", reset="earliest"))
        try:
            yield cluster, consumer, lab.run(_fill(cluster, jobs, consumer))
        finally:
            lab.run(consumer.close())
            lab.run(log.close())


def measure(lab: Lab, repeat: int, *, jobs: int) -> Figures:
    """Recovery of a planner with JOBS live jobs."""
    return lab.run(_kill_once(*lab.kept(_filled, lab, jobs)))


BENCH = Bench(
    measure,
    "the first step's answers are simulated (in-process backend, no model)",
    (
        Budget("take-over, median", "s", median_of("takeover_seconds"), at_most=3.0),
        Budget("steps asked again, in any run", "steps", most_of("asked_again"), at_most=0.0),
        Budget("jobs lost, in any run", "jobs", most_of("lost"), at_most=0.0),
    ),
    (option("jobs", 10_000, "Live when the planner is killed.", type=click.IntRange(1)),),
    quick={"jobs": 200},
)
