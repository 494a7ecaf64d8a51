"""Routers, delays and stand-in nodes on the in-memory log. A node here obeys the worker's part of the credits protocol and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from infra.lab.virtual_loop import within
from services.delay.app import build as build_delay
from services.delay.settings import DelaySettings
from services.router.app import build as build_router
from services.router.settings import RouterSettings
from services.worker.credits import share
from shared.clock import Clock
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.credits import CREDITS, Credits, RouterPresence
from shared.contracts.node import Node
from shared.contracts.step import Step
from shared.errors import LogError
from shared.kafka.port import Consumer, Log, Message, Record, TopicPartition
from shared.placement.parties import Parties
from shared.service import Service
from shared.topics import Topics, TopicSettings
from tests.support.routing import node as make_node
from tests.support.stage import Stage

STANDARD = PriorityClass.STANDARD


class Cluster(Stage):
    """Routers, delays and nodes on a stage."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(TopicSettings(steps_partitions=6, capabilities=("chat", "embed")), seed=seed)

    def router(self, name: str = "r1", **policy: Any) -> Service:
        return self.start(name, build_router(self.environment(name), RouterSettings(**policy)))

    def delay(self, name: str = "d1", **policy: Any) -> Service:
        return self.start(name, build_delay(self.environment(name), DelaySettings(**policy)))

    def node(self, name: str, mailbox: int, **behaviour: Any) -> FakeNode:
        made = FakeNode(self.log.process(name), self.topics, self.clock, name, mailbox, **behaviour)
        self.run(name, made)
        return made

    def start(self, name: str, service: Service) -> Service:
        self.run(name, service)
        return service

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0, step: float = 0.05) -> float:
        return await super().until(condition, seconds, step)

    def ask(self, *steps: Step, partition: int = 0, priority_class: PriorityClass = STANDARD) -> None:
        """Produce steps."""
        for step in steps:
            self.write(self.topics.steps(step.capability, priority_class), partition, step.to_bytes(), headers.envelope("step"))


@contextlib.asynccontextmanager
async def cluster(seed: int = 0) -> AsyncIterator[Cluster]:
    """A cluster whose services are ended with the block."""
    made = Cluster(seed)
    try:
        yield made
    finally:
        await made.close()


simulated = within(cluster)
"""Run an async test on a cluster of its own, under virtual time."""


class FakeNode:
    """Reads its mailbox at once, runs `slots` steps at a time for `seconds` each, and announces its places as a worker does."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        clock: Clock,
        name: str,
        mailbox: int,
        *,
        slots: int = 1,
        seconds: float = 0.1,
        **registered: Any,
    ) -> None:
        self._log = log
        self._topics = topics
        self._clock = clock
        self.name = name
        self.mailbox = mailbox
        self.slots = slots
        self.seconds = seconds
        self.registration: Node = make_node(name, mailbox=mailbox, slots=slots, **registered)
        self.done: list[Step] = []
        self.records: list[Record] = []
        self.most = 0
        """Most steps taken and not finished at any time: slots, if nobody over-commits."""
        self.closed = False
        """No places are offered."""
        self.tells = False
        """It says of all that it has read that it is claimed. It writes no claims."""
        self._parties = Parties(5.0)
        self._position = 0
        self._running = 0
        self._waiting: deque[Step] = deque()
        self._sequence = 0
        self._announce = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            self._group = group
            self._producer = await self._log.producer(client_id=self.name)
            stack.push_async_callback(self._producer.close)
            await self._producer.send(Message(self._topics.nodes, self.registration.to_bytes(), self.name.encode(), 0))
            mailbox = await self._reader(stack, self._topics.work("chat"), self.mailbox)
            credit = await self._reader(stack, self._topics.credits, 0)
            loops = [group.create_task(loop) for loop in (self._read_mailbox(mailbox), self._read_routers(credit), self._announcing())]
            await stop.wait()
            for task in loops:
                task.cancel()

    async def _reader(self, stack: contextlib.AsyncExitStack, topic: str, partition: int) -> Consumer:
        consumer = await self._log.consumer(client_id=self.name)
        stack.push_async_callback(consumer.close)
        consumer.assign([TopicPartition(topic, partition)])
        return consumer

    async def _read_mailbox(self, consumer: Consumer) -> None:
        while True:
            for record in await self._poll(consumer):
                self._take(record)

    def _take(self, record: Record) -> None:
        self._position = record.offset + 1
        if headers.find(record.headers, headers.NODE) == self.name.encode():
            self.records.append(record)
            self._waiting.append(Step.model_validate_json(record.value or b""))
            self.most = max(self.most, self._running + len(self._waiting))
            self._begin()

    def _begin(self) -> None:
        while self._waiting and self._running < self.slots:
            self._running += 1
            self._group.create_task(self._work(self._waiting.popleft()))

    async def _work(self, step: Step) -> None:
        await self._clock.sleep(self.seconds)
        self._running -= 1
        self.done.append(step)
        self._begin()
        self._announce.set()

    async def _read_routers(self, consumer: Consumer) -> None:
        while True:
            for message in [CREDITS.validate_json(record.value or b"") for record in await self._poll(consumer)]:
                if isinstance(message, RouterPresence) and self._parties.on_presence(message, self._clock.monotonic()):
                    self._announce.set()

    async def _poll(self, consumer: Consumer) -> list[Record]:
        try:
            batches = await consumer.poll(timeout_seconds=1.0)
        except LogError:
            await self._clock.sleep(0.5)
            return []
        return [record for records in batches.values() for record in records]

    async def _announcing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._announce.wait()
            await self._clock.sleep(0.005)
            self._announce.clear()
            with contextlib.suppress(LogError):
                await self._producer.send(Message(self._topics.credits, self._credits().to_bytes(), self.name.encode(), 0))

    def _credits(self) -> Credits:
        self._sequence += 1
        free = 0 if self.closed else max(0, self.slots - self._running - len(self._waiting))
        return Credits(
            node=self.name,
            boot=self.registration.boot,
            sequence=self._sequence,
            mailbox=self.mailbox,
            offers=share(free, self._parties.backlogs(self._clock.monotonic()), self._sequence),
            read={"chat": self._position, "embed": 0},
            told={"chat": (0, self._position)} if self.tells else {},
            running=self._running,
        )
