"""Closing aiokafka's objects: what is given up must not take its owner along, whatever state the connections are in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from aiokafka.client import AIOKafkaClient

from shared.telemetry import logs

log = logs.get(__name__)


async def close_client(client: AIOKafkaClient) -> None:
    """Close the client of a consumer or producer that is given up either way.

    In an outage it may still be writing to a connection that has just been closed: uvloop raises RuntimeError there.
    """
    try:
        await unless_cancelled(client.close())
    except Exception as error:
        log.warning("client_close_failed", error=repr(error))


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
