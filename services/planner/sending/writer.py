"""EventWriter: appends to `job-events`, for all homes of the process.

It shares its producer with the outbox: what is ready together travels in one request. A send of unknown fate is never repeated: the caller
forgets its state and begins anew with a PlannerStarted, so it does not matter that the producer opens a new session by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.clock import Clock
from shared.kafka.port import Message, Producer, TopicPartition

TURNS = 3
"""Turns of the event loop before an append: what is about to be sent (dispatches, other homes' appends) joins its request."""


class EventWriter:
    """`append` raises SendFailed (fate unknown) and RecordTooLarge; the caller then forgets its state."""

    def __init__(self, producer: Producer, clock: Clock) -> None:
        self._producer, self._clock = producer, clock

    async def append(self, partition: TopicPartition, messages: Sequence[Message]) -> int:
        """One record batch; the offset of its first record."""
        for _ in range(TURNS):
            await self._clock.sleep(0)
        return await self._producer.append(partition, messages)
