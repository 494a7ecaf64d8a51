"""LookAhead: the planner's second reader of job topics: one consumer without a group, for all its homes, and only while one has a backlog.

It reads behind the windows of the homes (`job_queue`), at most so many bytes a second, so that a tenant's job is found whatever lies before
it. It commits nothing; what it brings is taken like any other record of the home, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from services.planner.shard.wiring import Wiring
from shared.errors import LogError
from shared.kafka.port import Consumer, Record, TopicPartition
from shared.telemetry import logs

log = logs.get(__name__)

FETCH_BYTES = 256 * 1024
"""Of one partition in one fetch: a burst beyond the bound on bytes a second is at most so many from each."""
FETCH_MAX_WAIT_MS = 100
"""A partition that was sought waits at most this long for the fetch in flight."""
_POLL_SECONDS = 0.25
_LOOK_SECONDS = 0.1
"""Between two looks whether it may go on."""
_LINGER_SECONDS = 10.0
"""So long without a backlog the consumer is kept."""
_AGAIN_SECONDS = 0.5


class _Backlogs(Protocol):
    """What it reads for."""

    def backlog(self) -> bool:
        """Whether any home has one."""
        ...

    def looks_from(self) -> Mapping[TopicPartition, int]:
        """Where to go on, of the partitions of which anything is wanted now."""
        ...

    def look_ahead(self, partition: TopicPartition, topic_id: str, start: int, records: Sequence[Record], reached: int) -> None:
        """What lies in this topic from `start` on, up to `reached`."""
        ...


class LookAhead:
    """Of one planner. `run` is its task."""

    def __init__(self, wiring: Wiring, backlogs: _Backlogs) -> None:
        self._wiring, self._backlogs, self._clock = wiring, backlogs, wiring.clock
        self._wanted = asyncio.Event()
        self._resting: set[TopicPartition] = set()
        """Assigned, and not read at present."""

    def wake(self) -> None:
        """A home has a backlog."""
        self._wanted.set()

    async def run(self) -> None:
        """Look ahead whenever there is a backlog, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            consumer = await self._wiring.log.consumer(
                client_id=f"{self._wiring.instance}-ahead",
                reset="earliest",
                fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
                max_partition_fetch_bytes=FETCH_BYTES,
                committed_only=True,
            )
            try:
                await self._while_backlog(consumer)
            finally:
                await consumer.close()

    async def _while_backlog(self, consumer: Consumer) -> None:
        self._resting.clear()
        last, assigned = self._clock.monotonic(), frozenset[TopicPartition]()
        while self._clock.monotonic() - last < _LINGER_SECONDS:
            if self._backlogs.backlog():
                last = self._clock.monotonic()
            starts = self._backlogs.looks_from()
            if not starts:
                await self._clock.sleep(_LOOK_SECONDS)
                continue
            if not starts.keys() <= assigned:
                assigned |= starts.keys()
                consumer.assign(assigned)
                self._resting.clear()
            try:
                await self._read(consumer, starts)
            except LogError as error:  # also of a topic that was made anew: its home is taken again
                log.warning("look_ahead_waits", reason=error.message)
                await self._clock.sleep(_AGAIN_SECONDS)

    async def _read(self, consumer: Consumer, starts: Mapping[TopicPartition, int]) -> None:
        rest = consumer.assignment() - starts.keys()
        consumer.pause(*(rest - self._resting))
        for partition, start in starts.items():
            if consumer.reached(partition) != start:
                consumer.seek(partition, start)
        consumer.resume(*(self._resting - rest))
        self._resting = set(rest)
        batches = await consumer.poll(timeout_seconds=_POLL_SECONDS)
        for partition, start in starts.items():
            topic_id, reached = consumer.identity(partition.topic), consumer.reached(partition)
            if topic_id is not None and reached is not None:
                self._backlogs.look_ahead(partition, topic_id, start, batches.get(partition, ()), reached)
        size = sum(len(record.value or b"") for records in batches.values() for record in records)
        if size:
            await self._clock.sleep(size / self._wiring.options.look_ahead_bytes)
