"""What a consumer owns right now, kept in step with aiokafka's rebalances, and the caller's listener called in between.

Adapter between the port's Assignor and the object that aiokafka calls. aiokafka expects a class with state on the class; an instance
works as well, and keeps the state of its own consumer only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from shared.kafka.port import Assignor, RebalanceListener, TopicPartition

_VERSION = 0


class AioAssignor(AbstractPartitionAssignor):
    """One per consumer. `error` keeps what the assignor raised in the leader, so that the next poll can raise it unchanged."""

    def __init__(self, assignor: Assignor) -> None:
        self._assignor = assignor
        self.error: Exception | None = None

    @property
    def name(self) -> str:
        return self._assignor.name

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:  # type: ignore[override]
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), self._assignor.user_data())

    def assign(  # type: ignore[override]
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        told = {member: (tuple(metadata.subscription), bytes(metadata.user_data or b"")) for member, metadata in members.items()}
        topics = {topic for subscription, _ in told.values() for topic in subscription}
        counts = {topic: len(known) for topic in sorted(topics) if (known := cluster.partitions_for_topic(topic))}
        try:
            assigned = self._assignor.assign(told, counts)
        except Exception as error:
            self.error = error
            raise
        return {member: _encode(assigned.get(member, ())) for member in members}

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:  # type: ignore[override]
        self._assignor.on_assignment([TopicPartition(*tp) for tp in assignment.partitions()])


def _encode(partitions: Iterable[TopicPartition]) -> ConsumerProtocolMemberAssignment:
    by_topic: defaultdict[str, list[int]] = defaultdict(list)
    for topic, number in partitions:
        by_topic[topic].append(number)
    return ConsumerProtocolMemberAssignment(_VERSION, sorted(by_topic.items()), b"")


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
