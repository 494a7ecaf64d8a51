"""A job straight onto Kafka, as any producer would do it; its end is read from `results`, its text from `replies`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from pydantic import ValidationError

from infra.cli.answer import AnswerEnd, AnswerText, Update
from infra.cli.cluster import Cluster
from shared.contracts.base import PriorityClass
from shared.contracts.headers import envelope, reply_headers
from shared.contracts.job import Job, ReplyTo
from shared.contracts.reply import REPLY, Chunks, Final
from shared.contracts.result import Result
from shared.kafka.port import Consumer, Message, Record, TopicPartition
from shared.telemetry import tracing


async def send(cluster: Cluster, job: Job, priority_class: PriorityClass, reply: ReplyTo | None = None) -> None:
    """Write the job to its class's topic; returns when Kafka has it."""
    assert job.id is not None
    headers = envelope("job", tracing.new(cluster.random)) + (reply_headers(reply) if reply else ())
    producer = await cluster.connected(cluster.log.producer(client_id="tutti-cli"))
    try:
        topic = cluster.topics.jobs(priority_class)
        await cluster.connected(producer.send(Message(topic, job.to_bytes(), job.id.encode(), headers=headers, tenant=job.tenant)))
    finally:
        await producer.close()


class Listener:
    """Reads where a job's end, and its text, will appear. It stands there before the job is sent."""

    def __init__(self, cluster: Cluster, consumer: Consumer, job: str, reply: ReplyTo | None) -> None:
        self.reply = reply
        self._cluster = cluster
        self._consumer = consumer
        self._job = job

    async def updates(self) -> AsyncIterator[Update]:
        """The job's course, to its end."""
        while True:
            for records in (await self._consumer.poll(timeout_seconds=1.0)).values():
                for record in records:
                    for update in self._read(record):
                        if isinstance(update, AnswerEnd):
                            yield AnswerEnd(await self._cluster.connected(self._cluster.blobs().whole(update.result)))
                            return
                        yield update

    def _read(self, record: Record) -> list[Update]:
        """Replies and results of other callers, and what is no reply at all, are passed over."""
        try:
            if record.topic == self._cluster.topics.results:
                mine = record.key == self._job.encode() and record.value is not None
                return [AnswerEnd(Result.model_validate_json(record.value or b""))] if mine else []
            reply = REPLY.validate_json(record.value or b"")
        except ValidationError:
            return []
        correlation = self._job.encode()
        if isinstance(reply, Final):
            return [AnswerEnd(reply.result)] if reply.correlation == correlation else []
        assert isinstance(reply, Chunks)
        return [AnswerText(chunk.offset, chunk.text) for chunk in reply.chunks if chunk.correlation == correlation]


@asynccontextmanager
async def watch(cluster: Cluster, job: str, *, stream: bool) -> AsyncGenerator[Listener, None]:
    """A listener that stands at the end of `results`, and of one partition of `replies` when the text is wanted."""
    partitions = await cluster.partitions(cluster.topics.results)
    reply = None
    if stream:
        chosen = cluster.random.choice(await cluster.partitions(cluster.topics.replies))
        reply = ReplyTo(topic=chosen.topic, partition=chosen.partition, correlation=job.encode(), multiplex=True)
        partitions = [*partitions, chosen]
    async with cluster.reader(partitions) as consumer:
        await _to_the_end(cluster, consumer, partitions)
        yield Listener(cluster, consumer, job, reply)


async def _to_the_end(cluster: Cluster, consumer: Consumer, partitions: list[TopicPartition]) -> None:
    for partition, offset in (await cluster.connected(consumer.end_offsets(partitions))).items():
        consumer.seek(partition, offset)
