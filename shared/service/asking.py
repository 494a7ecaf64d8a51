"""Asking: a service that has the cluster do a job, like anybody, and waits for its end on `replies`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.job import Job, ReplyTo
from shared.contracts.reply import Final
from shared.contracts.result import Result
from shared.errors import Overloaded
from shared.kafka.port import Message, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.outbox import Outbox
from shared.processing.tail import Tail, at_end
from shared.service import Environment

MOST_AT_ONCE = 256


class Asking:
    """`run` is its task; nothing is asked before `listens`, since nobody would read the answer."""

    def __init__(self, environment: Environment, outbox: Outbox, service: str) -> None:
        topics, partition = environment.topics, environment.topics.reply_partition(environment.instance)
        self._outbox, self._topics, self._service = outbox, topics, service
        self._waiting: dict[bytes, asyncio.Future[Result]] = {}
        self._mark, self._numbers = b"ask-%016x-" % environment.random.getrandbits(64), count()
        self._lies = TopicPartition(topics.replies, partition)
        client = f"tutti-{service}-replies-{environment.instance}"
        self._tail = Tail(environment.log, environment.clock, (self._lies,), client_id=client, begin=at_end, handle=self._on_records)

    @property
    def listens(self) -> bool:
        return self._tail.positioned.is_set()

    async def run(self) -> None:
        """Read replies until cancelled."""
        await self._tail.run()

    async def ask(self, job: Job, priority_class: PriorityClass) -> Result:
        """Write it once and wait; whoever asks bounds the time, and gives the job a deadline. Raises Overloaded."""
        if not self.listens or len(self._waiting) >= MOST_AT_ONCE or self._outbox.full:
            raise Overloaded("too much is asked of the cluster" if self.listens else "replies are not read yet")
        number = next(self._numbers)
        correlation = self._mark + b"%d" % number
        reply = headers.reply_headers(ReplyTo(topic=self._lies.topic, partition=self._lies.partition, correlation=correlation))
        home = number % self._topics.settings.home_partitions
        message = Message(self._topics.jobs(priority_class), job.record(), None, home, (*headers.envelope("job"), *reply), job.tenant)
        ended: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = ended
        self._outbox.put(message, again=False, patience_seconds=job.deadline_seconds or 0.0)
        try:
            return await ended
        finally:
            del self._waiting[correlation]

    def _on_records(self, _partition: TopicPartition, records: Sequence[Record]) -> None:
        fold_each(self._service, records, self._on_record)

    def _on_record(self, record: Record) -> None:
        """Others' replies lie here, too: only one's own are read."""
        says = headers.Envelope(record.headers)
        ended = self._waiting.get(says.get(headers.CORRELATION_ID) or b"")
        if ended is not None and not ended.done() and record.value is not None and says.get(headers.TYPE) == b"final":
            ended.set_result(Final.model_validate_json(record.value).result)
