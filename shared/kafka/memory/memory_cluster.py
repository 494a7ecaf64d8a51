"""What the in-memory log's clients share: topics with their records, time, faults, and who is told of what changes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Protocol, cast

from shared.clock import Clock, LoopClock
from shared.errors import LogError
from shared.kafka.memory.memory_faults import Faults
from shared.kafka.memory.memory_partition import MemoryPartition, MemoryRecord
from shared.kafka.memory.memory_process import Absence, Availability
from shared.kafka.port import Message, NewTopic, TopicPartition
from shared.kafka.settings import HEARTBEAT_SECONDS, REBALANCE_SECONDS, SESSION_SECONDS


@dataclass(frozen=True, slots=True)
class GroupTimings:
    """Seconds."""

    session: float = SESSION_SECONDS
    heartbeat: float = HEARTBEAT_SECONDS
    rebalance: float = REBALANCE_SECONDS


Written = Callable[[Sequence[MemoryRecord]], None]
"""(records of one partition, as they were appended together)"""
Committed = Callable[[str, Mapping[TopicPartition, int]], None]
"""(group, next offsets to read)"""


class _Watcher(Protocol):
    """A consumer, as it is told of what it waits for."""

    def on_written(self, partition: TopicPartition) -> None: ...

    def on_topics_changed(self) -> None: ...


class MemoryCluster:
    """Knows its clients only by what they ask to be told."""

    def __init__(self, clock: Clock | None = None, *, random: Random | None = None, timings: GroupTimings | None = None) -> None:
        self.clock: Clock = clock or LoopClock()
        self.faults = Faults(random or Random(0))
        self.timings = timings or GroupTimings()
        self.availability = Availability()
        self.topics: dict[str, NewTopic] = {}
        self.topic_ids: dict[str, str] = {}
        self.topics_version = 0
        """Rises when a topic is created or deleted."""
        self.id = "memory"
        self.context = Context()
        """In which the cluster's own timers run: they belong to no process."""
        self.written_listeners: list[Written] = []
        self.committed_listeners: list[Committed] = []
        """Told of every append and of every accepted commit, at once. They must not raise."""
        self.topics_listeners: list[Callable[[Sequence[str]], None]] = []
        """Told the names of topics that were made, have grown, or are gone."""
        self._partitions: dict[TopicPartition, MemoryPartition] = {}
        self._watchers: defaultdict[TopicPartition, dict[_Watcher, None]] = defaultdict(dict)
        self._numbers = 0

    def go_away(self, absence: Absence = "waits") -> None:
        """The cluster is unreachable: calls wait, or fail with LogUnavailable (sends: SendFailed, nothing appended)."""
        self.availability.go_away(absence)

    def come_back(self) -> None:
        self.availability.come_back()

    def partition(self, partition: TopicPartition) -> MemoryPartition | None:
        return self._partitions.get(partition)

    def existing(self, partition: TopicPartition) -> MemoryPartition:
        """The partition. Raises LogError when there is none."""
        found = self._partitions.get(partition)
        if found is None:
            raise LogError(f"{partition} does not exist")
        return found

    def partition_count(self, topic: str) -> int:
        """0 when the topic does not exist."""
        found = self.topics.get(topic)
        return found.partitions if found else 0

    def create(self, topics: Sequence[NewTopic]) -> list[str]:
        """Create what is missing; groups that subscribe to it rebalance."""
        created = [topic for topic in topics if topic.name not in self.topics]
        for topic in created:
            self.topics_version += 1
            self.topics[topic.name] = topic
            self.topic_ids[topic.name] = f"{topic.name}#{self.topics_version}"
            for number in range(topic.partitions):
                tp = TopicPartition(topic.name, number)
                self._partitions[tp] = MemoryPartition(tp)
        names = [topic.name for topic in created]
        self._tell(names)
        return names

    def add_partitions(self, topic: str, count: int) -> None:
        """Raise the partition count of `topic` to `count`."""
        old = self.topics[topic]
        assert count > old.partitions, "partitions can only be added"
        self.topics[topic] = NewTopic(topic, count, old.replication, old.config)
        for number in range(old.partitions, count):
            tp = TopicPartition(topic, number)
            self._partitions[tp] = MemoryPartition(tp)
        self._tell([topic])

    def delete(self, names: Iterable[str]) -> None:
        """As Kafka does: with what groups have committed of them."""
        gone = [topic for name in names if (topic := self.topics.pop(name, None))]
        for topic in gone:
            self.topics_version += 1
            del self.topic_ids[topic.name]
            for number in range(topic.partitions):
                tp = TopicPartition(topic.name, number)
                del self._partitions[tp]
        self._tell([topic.name for topic in gone])

    def _tell(self, topics: Sequence[str]) -> None:
        for told in self.topics_listeners:
            told(topics)
        for watchers in list(self._watchers.values()):
            for consumer in watchers:
                consumer.on_topics_changed()

    def write(self, partition: TopicPartition, messages: Sequence[Message]) -> int:
        """Append as a foreign writer would, without delay or fault; returns the first offset."""
        visible_at = asyncio.get_running_loop().time() + self.faults.delivery(partition)
        found = self.existing(partition)
        base = found.append(messages, int(self.clock.wall() * 1000), visible_at)
        for listener in self.written_listeners:
            listener(cast("list[MemoryRecord]", found.records[-len(messages) :]))
        for consumer in self._watchers.get(partition, ()):
            consumer.on_written(partition)
        return base

    def spoil(self, partition: TopicPartition, count: int = 1) -> None:
        """Append a batch of `count` records that no reader can unpack."""
        visible_at = asyncio.get_running_loop().time() + self.faults.delivery(partition)
        self.existing(partition).spoil(count, int(self.clock.wall() * 1000), visible_at)
        for consumer in self._watchers.get(partition, ()):
            consumer.on_written(partition)

    def begin_transaction(self, partition: TopicPartition) -> None:
        """What is written from now on belongs to one open transaction."""
        self.existing(partition).begin_transaction()

    def end_transaction(self, partition: TopicPartition, *, commit: bool) -> None:
        self.existing(partition).end_transaction(commit=commit)
        for consumer in self._watchers.get(partition, ()):
            consumer.on_written(partition)

    def committed(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        for listener in self.committed_listeners:
            listener(group, offsets)

    def watch(self, consumer: _Watcher, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._watchers[tp][consumer] = None

    def unwatch(self, consumer: _Watcher, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._watchers[tp].pop(consumer, None)

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers
