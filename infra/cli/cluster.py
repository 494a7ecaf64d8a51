"""A command's connection to the cluster: settings, topics, Kafka; closed when the command ends."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import click

from infra.cli.exits import CommandExit, Exit
from shared.clock import Clock, SystemClock
from shared.contracts.act import Act
from shared.errors import NotFound
from shared.kafka.port import Admin, Consumer, Log, Record, TopicPartition
from shared.processing.acts import told
from shared.processing.tail import stretches
from shared.sealing.sealed_log import sealed
from shared.settings import ClusterSettings
from shared.tasks import in_time
from shared.topics import Topics

if TYPE_CHECKING:
    from shared.processing.blobs import Blobs

CONNECT_SECONDS = 5.0
"""A command gives up after this; services wait for ever."""

T = TypeVar("T")


def _kafka(settings: ClusterSettings, clock: Clock) -> Log:
    from shared.kafka.client.aio import AioLog
    from shared.kafka.client.security import security_of

    return sealed(
        AioLog(servers=settings.kafka_servers, clock=clock, security=security_of(settings)), settings, clock, Topics(settings.topics)
    )


def _user() -> str:
    """As this machine calls him."""
    try:
        return getpass.getuser()[:100]
    except (OSError, KeyError):  # a container's user without a name
        return str(os.getuid())


@dataclass(slots=True)
class Edge:
    """What commands touch the world through. Tests hand in another as the context's `obj`."""

    open_log: Callable[[ClusterSettings, Clock], Log] = _kafka
    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=Random)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Kafka as a command sees it."""

    settings: ClusterSettings
    topics: Topics
    log: Log
    clock: Clock
    random: Random

    async def connected(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of `call`, or exit code 3 when Kafka does not answer in time."""
        try:
            return await in_time(call, CONNECT_SECONDS)
        except TimeoutError:
            reason = self.log.trouble or f"Kafka at {self.settings.kafka_servers} does not answer"
            raise CommandExit(Exit.UNREACHABLE, reason) from None

    def blobs(self) -> Blobs:
        """Bodies above the inline bound."""
        from shared.processing.blobs import Blobs

        return Blobs(self.log, self.clock, self.topics, service="cli", instance="cli")

    async def tell(self, did: str, kind: str, name: str = "", *, count: int | None = None) -> None:
        """On `acts`, that who sits here is about to do this. Nobody checks the name: who may write as the command line may say any."""
        act = Act(by=f"cli:{_user()}", did=did, kind=kind, name=name, count=count, at=self.clock.wall())
        producer = await self.connected(self.log.producer(client_id="tutti-cli"))
        try:
            await self.connected(producer.send(told(self.topics, act)))
        finally:
            await producer.close()

    @asynccontextmanager
    async def admin(self) -> AsyncGenerator[Admin, None]:
        admin = await self.connected(self.log.admin())
        try:
            yield admin
        finally:
            await admin.close()

    @asynccontextmanager
    async def reader(self, partitions: list[TopicPartition], *, committed_only: bool = False) -> AsyncGenerator[Consumer, None]:
        """A consumer without a group that stands at the beginning of `partitions`."""
        consumer = await self.connected(self.log.consumer(client_id="tutti-cli", fetch_max_wait_ms=50, committed_only=committed_only))
        try:
            consumer.assign(partitions)
            yield consumer
        finally:
            await consumer.close()

    async def partitions(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic. Raises NotFound."""
        async with self.admin() as admin:
            found = (await self.connected(admin.list_topics())).get(topic)
        if found is None:
            raise NotFound(f"there is no topic {topic}; `tutti topics create` creates the missing ones")
        return [TopicPartition(topic, number) for number in range(found.partitions)]

    async def read_all(self, topic: str) -> AsyncIterator[Record]:
        """Every record that was in the topic when the call began, in order within each partition."""
        partitions = await self.partitions(topic)
        async with self.reader(partitions) as consumer:
            ends = await self.connected(consumer.end_offsets(partitions))
            async for records in stretches(consumer, {partition: (0, ends[partition]) for partition in partitions}):
                for record in records:
                    yield record


def with_cluster(context: click.Context, command: Callable[[Cluster], Coroutine[Any, Any, T]]) -> T:
    """Run `command` with a connection of its own."""
    edge = context.find_object(Edge) or Edge()
    return asyncio.run(_run(edge, command))


async def _run(edge: Edge, command: Callable[[Cluster], Coroutine[Any, Any, T]]) -> T:
    settings = ClusterSettings()
    log = edge.open_log(settings, edge.clock)
    try:
        return await command(Cluster(settings, Topics(settings.topics), log, edge.clock, edge.random))
    finally:
        await log.close()
