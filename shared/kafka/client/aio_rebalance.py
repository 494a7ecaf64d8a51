"""What a consumer owns right now, kept in step with aiokafka's rebalances, and the caller's listener called in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from aiokafka.abc import ConsumerRebalanceListener

from shared.kafka.port import RebalanceListener, TopicPartition


class Ownership(ConsumerRebalanceListener):
    """`partitions` is empty from the end of `on_revoked` until the next assignment, so that nothing is read or committed in between.

    aiokafka swallows what a listener raises; here it is kept in `error` for the next poll.
    """

    def __init__(self, prepare: Callable[[Collection[TopicPartition]], Awaitable[None]]) -> None:
        """`prepare` is awaited before the listener hears of an assignment."""
        self._prepare = prepare
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.listener: RebalanceListener | None = None
        self.settled = asyncio.Event()
        self.error: Exception | None = None

    def assigned_by_hand(self, partitions: Collection[TopicPartition]) -> None:
        self.partitions = frozenset(TopicPartition(*tp) for tp in partitions)
        self.settled.set()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.settled.clear()
        try:
            if self.listener is not None and self.partitions:
                await self.listener.on_revoked(self.partitions)
        except Exception as error:
            self.error = error
            raise
        finally:
            self.partitions = frozenset()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        partitions = frozenset(TopicPartition(*tp) for tp in assigned)
        try:
            await self._prepare(partitions)
            self.partitions = partitions
            if self.listener is not None:
                await self.listener.on_assigned(self.partitions)
        except Exception as error:
            self.error = error
            raise
        finally:
            self.settled.set()
