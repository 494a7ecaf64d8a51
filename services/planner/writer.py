"""EventWriter: appends to `job-events` with one idempotent producer for all homes of the process.

After a send of unknown fate the producer is replaced: a new producer session is a new PlannerStarted, and nothing is sent again (DESIGN 6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shared.errors import SendFailed
from shared.kafka.port import Log, Message, Producer, TopicPartition


class EventWriter:
    """`append` raises SendFailed (fate unknown) and RecordTooLarge; the caller then forgets its state."""

    def __init__(self, log: Log, client_id: str) -> None:
        self._log, self._client_id = log, client_id
        self._producer: Producer | None = None
        self._lock = asyncio.Lock()

    async def append(self, partition: TopicPartition, messages: Sequence[Message]) -> int:
        """One record batch; the offset of its first record."""
        producer = self._producer or await self._open()
        try:
            return await producer.append(partition, messages)
        except SendFailed:
            await self._discard(producer)
            raise

    async def close(self) -> None:
        if self._producer is not None:
            await self._producer.close()
            self._producer = None

    async def _open(self) -> Producer:
        async with self._lock:
            if self._producer is None:
                self._producer = await self._log.producer(client_id=f"{self._client_id}-events")
            return self._producer

    async def _discard(self, producer: Producer) -> None:
        """The others' appends fail with it, and they retake their partitions too."""
        if self._producer is producer:
            self._producer = None
            await producer.close()
