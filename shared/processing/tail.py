"""Tail: reads given partitions for ever, without a group. On a log error it goes on with a new consumer where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from shared.clock import Clock
from shared.errors import LogError, LogUnavailable, TopicMadeAnew
from shared.kafka.port import Consumer, Log, MissedRecords, Record, TopicPartition, identities
from shared.telemetry import logs, metrics

_log = logs.get(__name__)
_POLL_SECONDS = 0.5
_BACKOFF_SECONDS = 1.0

Start = Callable[[Consumer], Awaitable[Mapping[TopicPartition, int]]]
"""Chooses where reading begins; called until it succeeds once."""
Handle = Callable[[TopicPartition, Sequence[Record]], None]


class Tail:
    """`positioned` is set once reading has begun at known offsets; `positions` is the next offset of each partition."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        partitions: Sequence[TopicPartition],
        *,
        client_id: str,
        service: str,
        start: Start,
        handle: Handle,
        pause_seconds: float = 0.0,
        fetch_max_wait_ms: int = 500,
    ) -> None:
        self._log = log
        self._clock = clock
        self._partitions = partitions
        self._client_id = client_id
        self._service = service
        self._start = start
        self._handle = handle
        self._pause = pause_seconds
        self._fetch_max_wait_ms = fetch_max_wait_ms
        self.positions: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, str] = {}
        """Of the topics that `positions` belong to."""
        self.positioned = asyncio.Event()
        self.ends: dict[TopicPartition, int] = {}
        """End offsets when reading began."""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self._read()
            except LogError as error:
                metrics.CONSUMER_REBUILDS.labels(self._service, error.code).inc()
                _log.warning("reader_rebuilt", reader=self._client_id, reason=error.message)
                await self._clock.sleep(_BACKOFF_SECONDS)

    async def _read(self) -> None:
        consumer = await self._log.consumer(client_id=self._client_id, reset="earliest", fetch_max_wait_ms=self._fetch_max_wait_ms)
        try:
            consumer.assign(self._partitions, self._topic_ids)
            await self._position(consumer)
            while True:
                try:
                    batches = await consumer.poll(timeout_seconds=_POLL_SECONDS)
                except TopicMadeAnew as error:
                    _log.warning("reader_begins_anew", reader=self._client_id, topic=error.topic)
                    self.positions.update({tp: 0 for tp in self._partitions if tp.topic == error.topic})
                    self.ends.update({tp: 0 for tp in self._partitions if tp.topic == error.topic})
                    continue
                except LogUnavailable as error:
                    # The reader goes on by itself when Kafka is back.
                    _log.warning("reader_waits", reader=self._client_id, reason=error.message)
                    await self._clock.sleep(_BACKOFF_SECONDS)
                    continue
                for partition, records in batches.items():
                    if records:
                        self._handle(partition, records)
                        self.positions[partition] = records[-1].offset + 1
                if batches and self._pause:
                    await self._clock.sleep(self._pause)
        finally:
            self._topic_ids |= identities(consumer)
            await consumer.close()

    async def _position(self, consumer: Consumer) -> None:
        """Where it was; at first where `start` says; never before what the log still has."""
        if not self.positions:
            self.ends = await consumer.end_offsets(self._partitions)
            self.positions = dict(await self._start(consumer))
        beginnings = await consumer.beginning_offsets(self._partitions)
        for partition in self._partitions:
            if self.positioned.is_set() and self.positions[partition] < beginnings[partition]:
                consumer.missed.append(MissedRecords(partition, self.positions[partition], beginnings[partition]))
            self.positions[partition] = max(self.positions.get(partition, 0), beginnings[partition])
            consumer.seek(partition, self.positions[partition])
        self.positioned.set()

    def caught_up(self) -> bool:
        """Whether everything that was there at the beginning has been read."""
        return self.positioned.is_set() and all(self.positions[partition] >= end for partition, end in self.ends.items())


async def at_end(consumer: Consumer, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
    """Start behind everything that exists."""
    return await consumer.end_offsets(partitions)
