"""Closing aiokafka's objects: what is given up must not take its owner along, whatever state the connections are in.

aiokafka's own log lines, thinned: while a broker is away it writes some fifty a second. One of each kind per half minute is enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import ProducerClosed

from shared.clock import Clock
from shared.kafka.settings import STOP_SECONDS
from shared.tasks import in_time
from shared.telemetry import logs

EVERY_SECONDS = 30.0
MAX_KINDS = 200
LOGGERS = (
    "aiokafka",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.producer",
    "aiokafka.producer.sender",
)


class _Thin(logging.Filter):
    """Lets the first line of each kind (its template) through, then one every `EVERY_SECONDS`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock.monotonic()
        kind = str(record.msg)
        if now - self._last.get(kind, float("-inf")) < EVERY_SECONDS:
            return False
        if len(self._last) >= MAX_KINDS:
            self._last.clear()
        self._last[kind] = now
        return True


def thin_out(clock: Clock) -> None:
    """Put one filter on each of aiokafka's loggers; a second call changes nothing."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(present, _Thin) for present in logger.filters):
            logger.addFilter(_Thin(clock))


log = logs.get(__name__)


_closings: set[asyncio.Task[None]] = set()
"""Under way: nobody else may hold them."""


async def give_up(stop: Callable[[], Coroutine[Any, Any, None]], client: AIOKafkaClient, what: str) -> None:
    """Stop what uses this client, then close that, whatever goes wrong, and within a bound if the broker does not answer.

    In a task of its own, which goes on when the caller is cancelled: aiokafka awaits tasks of its own that take a cancellation for theirs,
    and then it would be lost to the caller.
    """
    closing = asyncio.create_task(_give_up(stop, client, what))
    _closings.add(closing)
    closing.add_done_callback(_closings.discard)
    await asyncio.shield(closing)


async def _give_up(stop: Callable[[], Coroutine[Any, Any, None]], client: AIOKafkaClient, what: str) -> None:
    await _stopped(stop(), what)
    await _stopped(client.close(), f"{what}'s client")


async def _stopped(stopping: Coroutine[Any, Any, None], what: str) -> None:
    """In an outage a client may still be writing to a connection that has just been closed: uvloop raises RuntimeError there."""
    try:
        await in_time(unless_cancelled(stopping), STOP_SECONDS)
    except Exception as error:
        log.warning("stop_failed", what=what, error=repr(error))


async def unless_cancelled(closing: Awaitable[None]) -> bool:
    """Whether it ran to its end.

    Aiokafka cancels tasks of its own and awaits them; when such a task had not begun, or waited for a broker that is away, the
    cancellation comes out as if it were ours, and would end whoever only wanted to close a consumer.
    """
    try:
        await closing
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return False
    return True


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Give it up, also one that never started."""

    async def stop() -> None:
        if not await unless_cancelled(consumer.stop()) and consumer._fetcher is not None:  # noqa: SLF001
            await unless_cancelled(consumer._fetcher.close())  # noqa: SLF001

    await give_up(stop, consumer._client, "consumer")  # noqa: SLF001


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Give it up without waiting for a broker that does not answer: what still waits in it fails."""
    producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001
    await give_up(producer.stop, producer.client, "producer")


async def stop_admin(admin: AIOKafkaAdminClient) -> None:
    """Give it up."""
    await give_up(admin.close, admin._client, "admin")  # noqa: SLF001
