"""The whole log in memory: topics, groups, time and faults of a Kafka cluster inside one event loop, for tests and simulations.

    log = MemoryLog(LoopClock(), random=Random(seed))
    planner = log.process("planner-1")      # a Log of its own; dies, freezes and thaws as one
    log.faults.send_seconds = (0.0, 0.2)    # see memory_faults
    log.kill("planner-1")

It never really waits: all delays are timers of the running loop, so under a virtual loop hours take milliseconds. The clock gives
the records' timestamps and must run with the loop (LoopClock, or SystemClock on a real loop).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import Context
from random import Random
from typing import Literal, Unpack, cast

from shared.clock import Clock, LoopClock
from shared.errors import LogError
from shared.kafka.assignor import BalancedAssignor
from shared.kafka.memory.memory_admin import MemoryAdmin
from shared.kafka.memory.memory_consumer import MemoryConsumer
from shared.kafka.memory.memory_faults import Faults
from shared.kafka.memory.memory_group import GroupTimings, MemoryGroup
from shared.kafka.memory.memory_partition import MemoryPartition, MemoryRecord
from shared.kafka.memory.memory_process import Absence, Availability, MemoryProcess
from shared.kafka.memory.memory_producer import MemoryProducer
from shared.kafka.port import ConsumerOptions, Message, NewTopic, TopicPartition
from shared.kafka.settings import PARTITION_FETCH_BYTES

Written = Callable[[Sequence[MemoryRecord]], None]
"""(records of one partition, as they were appended together)"""
Committed = Callable[[str, Mapping[TopicPartition, int]], None]
"""(group, next offsets to read)"""


class MemoryLog:
    """The cluster. Implements `port.Log` for tests with one process; `process(name)` gives each of several its own."""

    trouble: str | None = None
    unheard = False

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
        self._partitions: dict[TopicPartition, MemoryPartition] = {}
        self._groups: dict[str, MemoryGroup] = {}
        self._watchers: defaultdict[TopicPartition, dict[MemoryConsumer, None]] = defaultdict(dict)
        self._processes: dict[str, _ProcessLog] = {}
        self._numbers = 0
        self._own = self.process("main")

    # Log

    async def producer(self, *, client_id: str, acks: Literal["all", 1] = "all", linger_ms: int = 0) -> MemoryProducer:
        return await self._own.producer(client_id=client_id, acks=acks, linger_ms=linger_ms)

    async def consumer(self, **options: Unpack[ConsumerOptions]) -> MemoryConsumer:
        return await self._own.consumer(**options)

    async def admin(self) -> MemoryAdmin:
        return await self._own.admin()

    async def close(self) -> None:
        """Nothing is held by the log itself."""

    # Processes and faults

    def process(self, name: str) -> _ProcessLog:
        """The log as process `name` sees it. A killed name comes back as a new process."""
        known = self._processes.get(name)
        if known is None or known.process.state.value == "killed":
            known = self._processes[name] = _ProcessLog(self, MemoryProcess(name, self.availability))
        return known

    def kill(self, name: str) -> None:
        """SIGKILL: what is under way never returns, what travels is lost, sessions expire after the session timeout."""
        self._processes[name].process.kill()

    def freeze(self, name: str) -> None:
        """SIGSTOP: its calls return after the thaw; sessions expire meanwhile, and it comes back as a zombie."""
        self._processes[name].process.freeze()

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._processes[name].process.thaw()

    def go_away(self, absence: Absence = "waits") -> None:
        """The cluster is unreachable: calls wait, or fail with LogUnavailable (sends: SendFailed, nothing appended)."""
        self.availability.go_away(absence)

    def come_back(self) -> None:
        self.availability.come_back()

    # The data, as tests look at and change it

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

    def group(self, name: str) -> MemoryGroup:
        if name not in self._groups:
            self._groups[name] = MemoryGroup(name, self)
        return self._groups[name]

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
                for group in self._groups.values():
                    group.offsets.pop(tp, None)
        self._tell([topic.name for topic in gone])

    def _tell(self, topics: Sequence[str]) -> None:
        for group in self._groups.values():
            group.on_topics_changed(topics)
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

    # What consumers and groups call

    def committed(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        for listener in self.committed_listeners:
            listener(group, offsets)

    def watch(self, consumer: MemoryConsumer, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._watchers[tp][consumer] = None

    def unwatch(self, consumer: MemoryConsumer, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._watchers[tp].pop(consumer, None)

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers


class _ProcessLog:
    """Implements `port.Log` for one process."""

    trouble: str | None = None
    unheard = False

    def __init__(self, log: MemoryLog, process: MemoryProcess) -> None:
        self.process = process
        self._log = log

    async def producer(self, *, client_id: str, acks: Literal["all", 1] = "all", linger_ms: int = 0) -> MemoryProducer:
        await self.process.gate_patiently()
        return MemoryProducer(self._log, self.process)

    async def consumer(self, **options: Unpack[ConsumerOptions]) -> MemoryConsumer:
        group = options.get("group")
        await self.process.gate_patiently()
        return MemoryConsumer(
            self._log,
            self.process,
            client_id=options["client_id"],
            group=self._log.group(group) if group else None,
            reset=options.get("reset", "earliest"),
            assignor=options.get("assignor") or BalancedAssignor(),
            fetch_bytes=options.get("max_partition_fetch_bytes", PARTITION_FETCH_BYTES),
            committed_only=options.get("committed_only", False),
        )

    async def admin(self) -> MemoryAdmin:
        await self.process.gate_patiently()
        return MemoryAdmin(self._log, self.process)

    async def close(self) -> None:
        """Clients are closed by whoever opened them."""
