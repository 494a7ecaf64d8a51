"""How many events a second the sink folds and stores.

A history of N jobs (accepted with its ask, claimed, settled with its answer) lies in `job-events` of a real Kafka; then one sink begins.
Measured is from its first commit to its last. `events_per_cpu_s` is of the sink's process alone: what one core would do beside a store
that keeps up. The store is a `mongod` on the PATH, else SecantusDB, a stand-in that itself takes two to three thousand documents a second;
`--store` names another, for example FerretDB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import click

from infra.lab.bench.figures import MIB, Budget, Figures, median_of, most_of
from infra.lab.bench.machine import resident_bytes
from infra.lab.bench.runner import NO_SERVICE, Bench, Lab, option
from infra.native import ports
from infra.native.cluster import LocalCluster
from infra.native.mongo import MongoServer
from infra.native.processes import cpu_seconds, started
from infra.native.services import ServiceProcess
from shared.clock import SystemClock
from shared.contracts import event as events
from shared.contracts.base import ClaimId, PriorityClass, StepId
from shared.contracts.chat import Answer
from shared.contracts.fact import Fact
from shared.contracts.headers import envelope
from shared.contracts.ids import digest_of
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Result, Status
from shared.contracts.usage import Timings, Usage
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, TopicPartition
from shared.services import group_of
from shared.topics import Topics

PATIENCE_SECONDS = 300.0
_BATCH = 300
_CLOCK = SystemClock()
_USAGE = Usage(calls=1, prompt_tokens=400, completion_tokens=150, cost=0.0011)


def history(topics: Topics, home: int, jobs: int) -> Iterator[Message]:
    """One home's. Interleaved as under load: a job's events lie some hundred records apart."""
    yield _message(topics, home, events.PlannerStarted(nonce="bench", planner="bench", version=2), "")
    names = [f"t{number % 10}/bench-{home}-{number}" for number in range(jobs)]
    for first in range(0, jobs, _BATCH):
        group = names[first : first + _BATCH]
        for make in (_accepted, _claimed, _settled):
            yield from (_message(topics, home, make(home, name), name) for name in group)


def _accepted(home: int, job: str) -> events.JobAccepted:
    ask = events.FirstAsk(step=_step(job), path="0.1", agent="chat", model="gemma3:270m")
    request = Job(prompt="What came of it? " * 30, tenant=job.partition("/")[0])
    return events.JobAccepted(
        epoch=0, job=job, at=_CLOCK.wall(), request=request, priority_class=PriorityClass.STANDARD, home=home, source="jobs.standard/0/0",
        source_offset=0, pattern_version=1, limits=Limits(), deadline_at=2e9, digest="0" * 32, asks=(ask,),
    )  # fmt: skip


def _claimed(home: int, job: str) -> events.StepClaimedBy:
    claim = ClaimId(f"n1-b-{job}")
    return events.StepClaimedBy(
        epoch=0, job=job, at=_CLOCK.wall(), step=_step(job), attempt=1, claim=claim, node="n1", mailbox=0, lease_seconds=20.0
    )


def _settled(home: int, job: str) -> events.JobSettled:
    now, answer = _CLOCK.wall(), Answer(text="This came of it. " * 30)
    result = Result(
        job=job, tenant=job.partition("/")[0], status=Status.SUCCEEDED, answer=answer, usage=_USAGE, steps=1, attempts=1,
        accepted_at=now - 3.0, finished_at=now,
    )  # fmt: skip
    answered = events.LastAnswer(step=_step(job), attempt=1, node="n1", usage=_USAGE, timings=Timings(total_ms=2_000.0))
    return events.JobSettled(epoch=0, job=job, at=now, result=result, answered=answered)


def _step(job: str) -> StepId:
    return StepId(digest_of(job.encode()))


def _message(topics: Topics, home: int, event: events.PlannerStarted | Fact, key: str) -> Message:
    kind: str = type(event).model_fields["type"].default
    return Message(topics.job_events, event.to_bytes(), key.encode() or None, home, envelope(kind, version=2))


async def _fill(log: AioLog, topics: Topics, jobs: int) -> dict[TopicPartition, int]:
    """Where each home ends."""
    producer, homes = await log.producer(client_id="bench-sink"), topics.settings.home_partitions
    ends = {}
    for home in range(homes):
        messages = list(history(topics, home, jobs // homes))
        for first in range(0, len(messages), _BATCH):
            await producer.append(TopicPartition(topics.job_events, home), messages[first : first + _BATCH])
        ends[TopicPartition(topics.job_events, home)] = len(messages)
    await producer.close()
    return ends


async def _watch(log: AioLog, topics: Topics, sink: ServiceProcess, ends: dict[TopicPartition, int]) -> Figures:
    group, admin = group_of("sink", topics.settings.prefix), await log.admin()
    first: tuple[float, float, int] | None = None
    last, done, give_up_at = (0.0, 0.0), 0, _CLOCK.wall() + PATIENCE_SECONDS
    while done < sum(ends.values()) and _CLOCK.wall() < give_up_at:
        await _CLOCK.sleep(0.05)
        found = await admin.group_offsets(group)
        now = sum(found.get(tp, 0) for tp in ends)
        if now > done:
            done, last = now, (_CLOCK.wall(), cpu_seconds(sink.daemon.pid()))
            first = first or (*last, done)
    await admin.close()
    assert first is not None, "nothing was stored"
    stored, seconds, cpu = done - first[2], last[0] - first[0], last[1] - first[1]
    return {
        "events_per_s": round(stored / max(seconds, 1e-3)),
        "events_per_cpu_s": round(stored / max(cpu, 1e-3)),
        "cpu_share": round(cpu / max(seconds, 1e-3), 2),
        "resident_mib": round(resident_bytes(sink.daemon.pid()) / MIB),
        "missing": sum(ends.values()) - done,
    }


async def _run(cluster: LocalCluster, jobs: int) -> Figures:
    log, sink = AioLog(cluster.servers, _CLOCK), cluster.services["sink"]
    try:
        sink.stop()
        ends = await _fill(log, cluster.topics, jobs)
        sink.start()
        return await _watch(log, cluster.topics, sink, ends)
    finally:
        await log.close()


def _mongo(lab: Lab) -> AbstractContextManager[MongoServer]:
    return started(MongoServer(lab.home, ports.free_ports(1)[0], dies_with_parent=True))


def measure(lab: Lab, repeat: int, *, jobs: int, store: str | None) -> Figures:
    """Measure how fast the sink is."""
    about, url = ("the one that --store names", store) if store else ((own := lab.kept(_mongo, lab)).about, own.url)
    lab.simulated = f"the store is {about}; the history is made up"
    environment = {
        "TUTTI_SINK__STORE": url,
        "TUTTI_SINK__DATABASE": f"bench-sink-{os.getpid()}-{repeat}",
        "TUTTI_SINK__COMMIT_SECONDS": "0.1",
    }
    with lab.cluster("sink", workers=0, copies={**NO_SERVICE, "sink": 1}, environment=environment) as cluster:
        return lab.run(_run(cluster, jobs))


BENCH = Bench(
    measure,
    "",
    (
        Budget("events folded and stored", "1/s of the sink's CPU", median_of("events_per_cpu_s"), at_least=5_000.0),
        Budget("not stored, in any run", "events", most_of("missing"), at_most=0.0),
    ),
    (
        option("jobs", 30_000, "Of three events each.", type=click.IntRange(600)),
        option("store", None, "Use this server of MongoDB's protocol instead of starting one.", metavar="URL"),
    ),
    quick={"jobs": 12_000},
)
