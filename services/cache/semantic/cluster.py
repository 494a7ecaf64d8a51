"""Embedding by the cluster's own nodes: a job on `jobs.interactive`, like anybody's, whose end comes to `replies`.

Its tenant is `tutti-cache`: there are its tokens and costs, and an administrator's limits bound them. It never asks the cache itself.
The question stands in the history and in `results` once more, under that tenant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from services.cache.semantic.embedding import EmbedderAway, Embedding, embedding
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.cache import CacheControl
from shared.contracts.job import Job, ReplyTo
from shared.contracts.limits import Limits
from shared.contracts.reply import Final
from shared.contracts.result import Status
from shared.kafka.port import Message, Record, TopicPartition
from shared.model_names import canonical
from shared.processing.folding import fold_each
from shared.processing.outbox import Outbox
from shared.processing.tail import Tail, at_end
from shared.service import Environment

TENANT = "tutti-cache"
PATIENCE_SECONDS = 5.0
"""A vector that comes later is of no use to anybody."""
MOST_AT_ONCE = 256


class ClusterEmbedder:
    """Implements `Embedder`."""

    def __init__(self, environment: Environment, outbox: Outbox, model: str) -> None:
        topics = environment.topics
        self._outbox, self._model = outbox, canonical(model)
        self._jobs, self._homes = topics.jobs(PriorityClass.INTERACTIVE), topics.settings.home_partitions
        self._waiting: dict[bytes, asyncio.Future[Embedding]] = {}
        self._mark, self._numbers = b"embed-%016x-" % environment.random.getrandbits(64), count()
        self._lies = TopicPartition(topics.replies, topics.reply_partition(environment.instance))
        self._tail = Tail(
            environment.log,
            environment.clock,
            (self._lies,),
            client_id=f"tutti-cache-replies-{environment.instance}",
            begin=at_end,
            handle=self._on_records,
        )

    @property
    def trouble(self) -> str | None:
        """Nothing is asked before answers would be read."""
        return None if self._tail.positioned.is_set() else "replies are not read yet"

    async def run(self) -> None:
        await self._tail.run()

    async def embed(self, text: str) -> Embedding:
        if self.trouble is not None or len(self._waiting) >= MOST_AT_ONCE or self._outbox.full:
            raise EmbedderAway(self.trouble or "too many texts wait for their vectors")
        number = next(self._numbers)
        correlation = self._mark + b"%d" % number
        answer: asyncio.Future[Embedding] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = answer
        job = Job(
            tenant=TENANT,
            texts=(text,),
            model=self._model,
            cache=CacheControl(mode="off"),
            limits=Limits(attempts=1),
            deadline_seconds=PATIENCE_SECONDS,
        )
        reply = headers.reply_headers(ReplyTo(topic=self._lies.topic, partition=self._lies.partition, correlation=correlation))
        self._outbox.put(
            Message(self._jobs, job.record(), None, number % self._homes, (*headers.envelope("job"), *reply)),
            again=False,
            patience_seconds=PATIENCE_SECONDS,
        )
        try:
            return await answer
        finally:
            del self._waiting[correlation]

    async def close(self) -> None:
        return None

    def _on_records(self, _partition: TopicPartition, records: Sequence[Record]) -> None:
        fold_each("cache", records, self._on_record)

    def _on_record(self, record: Record) -> None:
        says = headers.Envelope(record.headers)
        waiting = self._waiting.get(says.get(headers.CORRELATION_ID) or b"")
        if waiting is None or waiting.done() or record.value is None or says.get(headers.TYPE) != b"final":
            return
        try:
            waiting.set_result(self._read(Final.model_validate_json(record.value)))
        except EmbedderAway as error:
            waiting.set_exception(error)

    def _read(self, final: Final) -> Embedding:
        answer = final.result.answer
        if final.result.status is not Status.SUCCEEDED or answer is None or len(answer.embeddings) != 1 or answer.model is None:
            raise EmbedderAway(f"the embed job has {final.result.status.value} without one vector")
        return embedding(answer.embeddings[0], "cluster", canonical(answer.model), answer.digest or "", str(answer.simulated))
