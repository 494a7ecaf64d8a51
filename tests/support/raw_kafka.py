"""Bare aiokafka clients with tutti's settings, for tests of what client and broker really do."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from shared.clock import SystemClock
from shared.kafka.client.aio import CONSUMER_OPTIONS

PATIENCE_SECONDS = 40.0
CLOCK = SystemClock()

Topic = Callable[..., Awaitable[str]]


@asynccontextmanager
async def topics(servers: str) -> AsyncIterator[Topic]:
    """A maker of topics (partitions, configuration) that are deleted afterwards."""
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    made: list[str] = []

    async def make(partitions: int = 1, **config: str) -> str:
        name = f"assume-{secrets.token_hex(5)}"
        dotted = {key.replace("_", "."): value for key, value in config.items()}
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dotted)])
        made.append(name)
        await until(lambda: listed(admin, name))
        return name

    try:
        yield make
    finally:
        await admin.delete_topics(made)
        await admin.close()


async def listed(admin: Any, name: str) -> bool:
    return name in await admin.list_topics()


def consumer(servers: str, *subscribed: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """A consumer with our settings, some of them replaced."""
    defaults = {"auto_offset_reset": "earliest", "partition_assignment_strategy": (RoundRobinPartitionAssignor,)}
    made: Any = AIOKafkaConsumer(*subscribed, bootstrap_servers=servers, **{**CONSUMER_OPTIONS, **defaults, **options})
    return made


def producer(servers: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """An idempotent producer, some settings replaced."""
    made: Any = AIOKafkaProducer(bootstrap_servers=servers, **{"acks": "all", "enable_idempotence": True, **options})
    return made


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = PATIENCE_SECONDS) -> None:
    """Ask again and again, every 20 ms."""
    give_up_at = CLOCK.monotonic() + seconds
    while not await condition():
        assert CLOCK.monotonic() < give_up_at, "it never happened"
        await CLOCK.sleep(0.02)


async def drain(reader: Any, count: int, **options: Any) -> list[Any]:
    """`count` records or more, by getmany."""
    found: list[Any] = []
    give_up_at = CLOCK.monotonic() + PATIENCE_SECONDS
    while len(found) < count:
        assert CLOCK.monotonic() < give_up_at, f"{len(found)} of {count} records arrived"
        for records in (await reader.getmany(timeout_ms=200, **options)).values():
            found += records
    return found


@asynccontextmanager
async def pumping(reader: Any) -> AsyncIterator[asyncio.Task[None]]:
    """A coroutine that always polls, as every consumer of ours has."""

    async def pump() -> None:
        while True:
            await reader.getmany(timeout_ms=200)

    task = asyncio.ensure_future(pump())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
