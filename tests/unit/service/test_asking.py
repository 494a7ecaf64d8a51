"""A service that asks the cluster: its job is like anybody's, its reply is found among others', and what goes wrong is said in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from infra.lab.virtual_loop import run
from services.cache.semantic.cluster import TENANT, ClusterEmbedder
from services.cache.semantic.embedding import EmbedderAway
from shared.contracts.base import PriorityClass
from shared.contracts.bounds import parse_job
from shared.contracts.chat import Answer
from shared.contracts.headers import Envelope, correlation_headers, envelope
from shared.contracts.job import Job, ReplyTo
from shared.contracts.reply import Final
from shared.contracts.result import Result, Status
from shared.kafka.port import Message, Record, TopicPartition
from shared.processing.outbox import Outbox
from shared.service.asking import MOST_AT_ONCE, Asking
from shared.topics import TopicSettings
from tests.support.stage import Stage

VECTOR = (0.6, 0.8)


def result(status: Status = Status.SUCCEEDED, **answer: object) -> Result:
    said = Answer.model_validate({"embeddings": (VECTOR,), "model": "mini", "digest": "d1", **answer})
    return Result(job="j_1", tenant=TENANT, status=status, answer=said, accepted_at=0.0, finished_at=0.0)


class Cluster(Stage):
    """Answers embed jobs with `says`; before each it writes what is not meant for whoever asked."""

    def __init__(self) -> None:
        super().__init__(TopicSettings())
        self.jobs, self.says = list[tuple[Job, ReplyTo]](), result()
        self.outbox = Outbox(self.clock, "cache", self.topics)
        self.asking = Asking(self.environment("cache"), self.outbox, "cache")
        self.embedder = ClusterEmbedder(self.asking, "mini")

    async def answer(self) -> None:
        consumer, producer = await self.log.consumer(client_id="c", reset="earliest"), await self.log.producer(client_id="p")
        name = self.topics.jobs(PriorityClass.INTERACTIVE)
        consumer.assign([TopicPartition(name, home) for home in range(self.topics.settings.home_partitions)])
        while True:
            for records in (await consumer.poll(timeout_seconds=0.1)).values():
                for record in records:
                    await producer.send_many(self._replies(record))

    def _replies(self, record: Record) -> list[Message]:
        job, reply = parse_job(record.value or b""), Envelope(record.headers).reply_address()
        assert reply is not None
        self.jobs.append((job, reply))
        head, value = (*envelope("final"), *correlation_headers(reply)), Final(correlation=reply.correlation, result=self.says).to_bytes()
        foreign = Final(correlation=b"x", result=result(Status.FAILED)).to_bytes()
        return [
            Message(reply.topic, foreign, b"k", reply.partition, (*envelope("final"), ("correlation-id", b"x"))),
            Message(reply.topic, b"nonsense", b"k", reply.partition, head),
            Message(reply.topic, value, b"k", reply.partition, head),
        ]


def with_cluster(test: Callable[[Cluster], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = Cluster()
        with pytest.raises(EmbedderAway):
            await cluster.embedder.embed("before replies are read")
        producer = await cluster.log.producer(client_id="cache")
        running = [asyncio.create_task(part) for part in (cluster.embedder.run(), cluster.outbox.run(producer), cluster.answer())]
        while cluster.embedder.trouble is not None:
            await cluster.clock.sleep(0.1)
        async with asyncio.timeout(60):
            await test(cluster)
        for task in running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    run(main())


def test_a_text_becomes_a_vector_by_a_job_that_never_asks_the_cache() -> None:
    async def test(cluster: Cluster) -> None:
        made = await cluster.embedder.embed("how tall")
        assert list(made.vector) == pytest.approx(VECTOR)
        [(job, reply)] = cluster.jobs
        assert (job.texts, job.tenant, job.model, job.deadline_seconds) == (("how tall",), TENANT, "mini:latest", 5.0)
        assert job.cache is not None
        assert job.cache.mode == "off"
        assert (reply.topic, reply.partition) == (cluster.topics.replies, cluster.topics.reply_partition("cache"))
        again = await asyncio.gather(*(cluster.embedder.embed(f"{number}") for number in range(20)))
        assert {one.by for one in again} == {made.by}
        cluster.says = result(digest="d2")
        assert (await cluster.embedder.embed("how tall")).by != made.by, "another file of the model"

    with_cluster(test)


@pytest.mark.parametrize("wrong", [result(Status.FAILED), result(embeddings=()), result(embeddings=((0.0, 0.0),)), result(model=None)])
def test_what_is_no_vector_is_said(wrong: Result) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.says = wrong
        with pytest.raises(EmbedderAway):
            await cluster.embedder.embed("how tall")

    with_cluster(test)


def test_who_gives_up_is_forgotten_and_too_many_at_once_are_refused() -> None:
    async def test(cluster: Cluster) -> None:
        asked = [asyncio.create_task(cluster.embedder.embed(f"{number}")) for number in range(MOST_AT_ONCE + 3)]
        await cluster.clock.sleep(0.0)
        assert sum(task.done() and isinstance(task.exception(), EmbedderAway) for task in asked) == 3
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert cluster.asking._waiting == {}
        await cluster.embedder.embed("after that")

    with_cluster(test)
