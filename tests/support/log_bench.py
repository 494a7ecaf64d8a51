"""What the log behaviour suite runs on: one log, fresh names for topics and groups, and patience without sleeping longer than needed."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from shared.clock import Clock
from shared.errors import SendFailed
from shared.kafka.port import Consumer, Log, Message, MissedRecords, NewTopic, Record, TopicPartition

PATIENCE_SECONDS = 40.0

Deleter = Callable[[TopicPartition, int], Awaitable[None]]
Spoiler = Callable[[TopicPartition, int], Awaitable[None]]
Foreign = Callable[[TopicPartition, Sequence[tuple[str, bytes | None]]], Awaitable[None]]


@dataclass
class Bench:
    """`prefix` keeps runs apart on a shared broker; `delete_before` is retention on demand; `spoil` appends a batch of so many records
    that nobody can unpack; `foreign` appends a record with such headers, as a client in another language might.
    """

    log: Log
    clock: Clock
    prefix: str
    delete_before: Deleter
    spoil: Spoiler
    foreign: Foreign
    topics: list[str] = field(default_factory=list)
    missed: list[MissedRecords] = field(default_factory=list)
    """What the watchdog took away from its consumers, where there is one."""
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    async def topic(self, partitions: int = 1) -> str:
        """A new topic."""
        name = f"{self.prefix}t{next(iter(self._numbers))}"
        admin = await self.log.admin()
        await admin.create_topics([NewTopic(name, partitions, 1, {})])
        self.topics.append(name)
        while name not in await admin.list_topics():
            await self.clock.sleep(0.02)
        await admin.close()
        return name

    async def make_anew(self, name: str, partitions: int = 1) -> None:
        """Delete a topic and create it again."""
        admin = await self.log.admin()
        before = (await admin.list_topics())[name].id
        await admin.delete_topics([name])
        while not await admin.create_topics([NewTopic(name, partitions, 1, {})]):
            await self.clock.sleep(0.02)
        while (found := (await admin.list_topics()).get(name)) is None or found.id == before:
            await self.clock.sleep(0.02)
        await admin.close()

    async def write(self, topic: str, count: int, partition: int = 0) -> None:
        """`count` records with the values 0, 1, ... in one partition; tried until the topic takes them."""
        producer = await self.log.producer(client_id="writer")
        messages = [Message(topic, b"%d" % n) for n in range(count)]
        give_up_at = self.clock.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                assert await producer.append(TopicPartition(topic, partition), messages) == 0
                break
            except SendFailed:
                assert self.clock.monotonic() < give_up_at, "the topic takes nothing"
                await self.clock.sleep(0.1)
        await producer.close()

    def group(self) -> str:
        return f"{self.prefix}g{next(iter(self._numbers))}"

    async def read(self, consumer: Consumer, count: int) -> list[Record]:
        """At least `count` records, in the order in which polls gave them."""
        found: list[Record] = []
        give_up_at = self.clock.monotonic() + PATIENCE_SECONDS
        while len(found) < count:
            assert self.clock.monotonic() < give_up_at, f"{len(found)} of {count} records arrived"
            for records in (await consumer.poll(timeout_seconds=0.5)).values():
                found.extend(records)
        return found

    async def reader(self, partitions: Collection[TopicPartition]) -> Consumer:
        """A consumer without group at the beginning of `partitions`."""
        consumer = await self.log.consumer(client_id="reader")
        consumer.assign(partitions)
        return consumer

    async def contents(self, partition: TopicPartition) -> list[Record]:
        """Everything in one partition."""
        consumer = await self.reader([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        begin = (await consumer.beginning_offsets([partition]))[partition]
        found = await self.read(consumer, end - begin)
        await consumer.close()
        return found

    async def polling_until(self, done: Callable[[], bool], *consumers: Consumer) -> None:
        """Poll all `consumers` in turn until `done`."""
        give_up_at = self.clock.monotonic() + PATIENCE_SECONDS
        while not done():
            assert self.clock.monotonic() < give_up_at, "it never happened"
            for consumer in consumers:
                await consumer.poll(timeout_seconds=0.05)

    async def joined(self, *consumers: Consumer) -> None:
        """Poll until every one of `consumers` has an assignment."""
        await self.polling_until(lambda: all(consumer.assignment() for consumer in consumers), *consumers)


Case = Callable[[Bench], Awaitable[None]]
"""One property of every log."""


def partitions_of(topic: str, count: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(count)]


class Recorder:
    """A rebalance listener that keeps what it was told; `revoking` runs inside `on_revoked`."""

    def __init__(self, revoking: Callable[[Collection[TopicPartition]], Awaitable[None]] | None = None) -> None:
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self._revoking = revoking

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("revoked", frozenset(partitions)))
        if self._revoking is not None:
            await self._revoking(partitions)

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("assigned", frozenset(partitions)))
