"""The registry's topics on a broker that was just started, or is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from shared.clock import SystemClock
from shared.errors import LogError
from shared.kafka.port import Log, NewTopic
from shared.settings import ClusterSettings, KafkaSettings
from shared.topics import Topics

SECONDS = 30.0
"""Of one attempt. As long as topics appear another one follows: a busy broker makes dozens of topics slowly."""

T = TypeVar("T")


def ensure_topics(servers: str, topics: Topics | None = None, *, reached: KafkaSettings | None = None) -> list[str]:
    """Create those that do not exist, with the counts of the TUTTI_TOPICS settings unless given; returns the names created last.
    `reached`: how Kafka is, by the TUTTI_KAFKA settings unless given.

    Raises LogError kinds, ConfigurationError or TimeoutError. Blocks.
    """
    from shared.processing.provision import ensure_topics as ensure

    wanted = topics or Topics(ClusterSettings().topics)

    async def until_all_there(log: Log) -> list[str]:
        known = -1
        while True:
            try:
                async with asyncio.timeout(SECONDS):
                    return await ensure(log, wanted)
            except (LogError, TimeoutError):
                there = await _names(log)
                if len(there) <= known:
                    raise
                known = len(there)

    return _with_log(servers, until_all_there, reached)


def delete_topics(servers: str, topics: Topics, *, reached: KafkaSettings | None = None) -> None:
    """Delete all of `topics` that exist. Raises LogError kinds or TimeoutError. Blocks."""
    _with_log(servers, lambda log: _delete(log, [topic.name for topic in topics.all()]), reached)


@contextmanager
def created(servers: str, topics: Sequence[NewTopic]) -> Iterator[None]:
    """These exist meanwhile. Raises LogError kinds or TimeoutError. Blocks."""
    _with_log(servers, lambda log: _create(log, topics), None)
    try:
        yield
    finally:
        _with_log(servers, lambda log: _delete(log, [topic.name for topic in topics]), None)


async def _create(log: Log, topics: Sequence[NewTopic]) -> None:
    async with asyncio.timeout(SECONDS):
        admin = await log.admin()
        try:
            await admin.create_topics(topics)
        finally:
            await admin.close()


async def _names(log: Log) -> Collection[str]:
    async with asyncio.timeout(SECONDS):
        admin = await log.admin()
        try:
            return await admin.list_topics()
        finally:
            await admin.close()


async def _delete(log: Log, names: Sequence[str]) -> None:
    async with asyncio.timeout(SECONDS):
        admin = await log.admin()
        try:
            present = await admin.list_topics()
            await admin.delete_topics([name for name in names if name in present])
        finally:
            await admin.close()


def _with_log(servers: str, action: Callable[[Log], Awaitable[T]], reached: KafkaSettings | None) -> T:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # leaves the caller's current loop alone
        return runner.run(_run(servers, action, reached or KafkaSettings()))


async def _run(servers: str, action: Callable[[Log], Awaitable[T]], reached: KafkaSettings) -> T:
    from shared.kafka.client.aio import AioLog
    from shared.kafka.client.security import security_of

    log = AioLog(servers=servers, clock=SystemClock(), security=security_of(reached))
    try:
        return await action(log)
    finally:
        await log.close()
