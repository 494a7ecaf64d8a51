"""Adapter between the port's Assignor and the object that aiokafka calls. aiokafka expects a class with state on the class; an instance
works as well, and keeps the state of its own consumer only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from shared.kafka.port import Assignor, TopicPartition

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
