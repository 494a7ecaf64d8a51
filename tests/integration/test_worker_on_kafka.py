"""Promise: a step in a worker's mailbox on a real Kafka becomes exactly one outcome at its home, across drain and restart.

How: a real broker, the simulated Ollama over HTTP, the worker service with its real log. The test is router and planner.

    test ──► work.chat[mailbox] ──► worker ──► simulator
      ▲                               │
      └────────── outcomes[home] ◄────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from services.worker.app import WorkerService, build
from services.worker.settings import WorkerSettings
from shared.clock import SystemClock
from shared.contracts import headers
from shared.contracts.base import StepId
from shared.contracts.chat import ChatMessage
from shared.contracts.control import StopStep
from shared.contracts.failure import FailureKind
from shared.contracts.job import ReplyTo
from shared.contracts.outcome import OUTCOME, Outcome, StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.contracts.reply import Chunks
from shared.contracts.step import Step
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Consumer, Message, Producer, TopicPartition
from shared.processing.provision import ensure_topics
from shared.service import Environment
from shared.settings import ClusterSettings
from shared.tasks import ended
from shared.topics import Topics, TopicSettings
from tests.support.simulated_node import STEADY, http_node

pytestmark = pytest.mark.kafka

FAST = STEADY.with_(load_gb_per_second=1_000, cached_load_gb_per_second=1_000, decode_gb_per_second=1_000, num_parallel=4)
SLOW = FAST.with_(decode_gb_per_second=10)
"""A token every 0.1 s."""
NODE = "worker-test"


async def until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    """Poll until `condition` holds; a busy machine may need a while."""
    async with asyncio.timeout(seconds):
        while not condition():
            await SystemClock().sleep(0.01)


@dataclass
class Cluster:
    """What the test writes and what it has read so far."""

    topics: Topics
    log: AioLog
    producer: Producer
    consumer: Consumer
    outcomes: list[Outcome] = field(default_factory=list)
    text: str = ""
    random: Random = field(default_factory=lambda: Random(7))

    async def read(self) -> None:
        while True:
            for tp, records in (await self.consumer.poll(timeout_seconds=1)).items():
                for record in records:
                    if tp.topic == self.topics.outcomes:
                        self.outcomes.append(OUTCOME.validate_json(record.value or b""))
                    else:
                        self.text += "".join(chunk.text for chunk in Chunks.model_validate_json(record.value or b"").chunks)

    def of(self, kind: type[Outcome]) -> list[Any]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, kind)]

    async def route(self, worker: WorkerService, *steps: Step) -> None:
        head = (*headers.envelope("step"), (headers.NODE, NODE.encode()))
        mailbox = worker.reader.number
        await self.producer.send_many(
            [Message(self.topics.work("chat"), given.to_bytes(), given.job.encode(), mailbox, head) for given in steps]
        )

    def worker(self, url: str, **settings: Any) -> WorkerService:
        environment = Environment(
            settings=ClusterSettings(grace_seconds=10),
            log=self.log,
            clock=SystemClock(),
            random=self.random,
            topics=self.topics,
            instance=f"worker-test-{self.random.getrandbits(32)}",
        )
        return build(environment, WorkerSettings(node=NODE, url=url, slots=4, **settings))

    @asynccontextmanager
    async def running(self, url: str) -> AsyncIterator[tuple[WorkerService, asyncio.Event]]:
        worker, stop = self.worker(url), asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            await until(lambda: worker.readiness().ready or task.done())
            yield worker, stop
        finally:
            stop.set()
            await task


@pytest.fixture
async def cluster(kafka: str) -> AsyncIterator[Cluster]:
    topics = Topics(
        TopicSettings(prefix=f"worker{Random().getrandbits(32):x}-", home_partitions=2, work_partitions=2, replies_partitions=1)
    )
    log = AioLog(kafka, SystemClock())
    await ensure_topics(log, topics)
    consumer = await log.consumer(client_id="worker-test-reader")
    consumer.assign([TopicPartition(topics.outcomes, 0), TopicPartition(topics.outcomes, 1), TopicPartition(topics.replies, 0)])
    made = Cluster(topics, log, await log.producer(client_id="worker-test"), consumer)
    reading = asyncio.create_task(made.read())
    yield made
    await ended(reading)
    await consumer.close()
    await made.producer.close()
    admin = await log.admin()
    await admin.delete_topics([topic.name for topic in topics.all()])
    await admin.close()
    await log.close()


def step(number: int, **changes: Any) -> Step:
    base: dict[str, Any] = {
        "job": f"j{number}",
        "id": StepId(f"{number:032x}"),
        "home": number % 2,
        "model": "small",
        "messages": (ChatMessage(role="user", content=f"question {number}"),),
    }
    return Step(**(base | changes))


async def test_steps_become_outcomes_and_a_restart_runs_nothing_again(cluster: Cluster) -> None:
    """200 steps: 200 claims, 200 answers, none twice; after a drain and a restart the next one is served from where it stopped."""
    async with http_node(FAST) as (url, simulated):
        async with cluster.running(url) as (worker, _):
            await cluster.route(worker, *(step(n) for n in range(200)))
            await until(lambda: len(cluster.of(StepSucceeded)) == 200)
        async with cluster.running(url) as (worker, _):
            await cluster.route(worker, step(200))
            await until(lambda: len(cluster.of(StepSucceeded)) == 201)
        assert len({claim.claim for claim in cluster.of(StepClaimed)}) == len(cluster.of(StepClaimed)) == 201
        assert all(answer.answer.simulated for answer in cluster.of(StepSucceeded))
        assert simulated.truth.requests["chat"] == 201
        assert simulated.truth.most_in_flight <= 4


async def test_a_stream_reaches_its_reader_and_a_stop_reaches_the_endpoint(cluster: Cluster) -> None:
    """Chunks join to the answer; a stop frees the endpoint and is told as cancelled; SIGTERM releases what cannot end in time."""
    async with http_node(SLOW) as (url, simulated):
        async with cluster.running(url) as (worker, _):
            reply = ReplyTo(topic=cluster.topics.replies, partition=0, correlation=b"c", multiplex=True)
            await cluster.route(worker, step(1, stream=True, reply=reply))
            await until(lambda: bool(cluster.of(StepSucceeded)))
            await until(lambda: cluster.text == cluster.of(StepSucceeded)[0].answer.text)
            await cluster.route(worker, step(2))
            await until(lambda: simulated.truth.in_flight == 1)
            stop = StopStep(node=NODE, job="j2", step=step(2).id, attempt=1)
            await cluster.producer.send(Message(cluster.topics.controls, stop.to_bytes(), None, worker.reader.number))
            await until(lambda: simulated.truth.in_flight == 0)
            await until(lambda: bool(cluster.of(StepFailed)))
            assert cluster.of(StepFailed)[0].failure.kind is FailureKind.CANCELLED
            await cluster.route(worker, *(step(n) for n in range(10, 30)))
            await until(lambda: len(cluster.of(StepClaimed)) == 22)

        def ended() -> list[str]:
            return sorted(o.job for o in cluster.outcomes if isinstance(o, StepSucceeded | StepReleased) and o.job not in ("j1", "j2"))

        await until(lambda: len(ended()) >= 20)
        assert ended() == [f"j{n}" for n in range(10, 30)]
        assert cluster.of(StepReleased)
