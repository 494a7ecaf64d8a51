"""Outbox: what concurrent requests want written, drained into as few record batches as possible.

Requests do not wait for the acknowledgement; they are told of it, or of the failure, through `settle`. A record is written once, since a
second one might be a second job, and everything waits at most `patience_seconds`: then the entry fails as LogUnavailable, is dropped when
it was not handed over yet, and its fate is unknown otherwise. Only a `patient` one is kept, and sent again, as long as it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf

from shared.clock import Clock
from shared.errors import NoDestination, NotSent, Overloaded, RecordTooLarge
from shared.kafka.port import Message, Producer
from shared.processing.lane import Result
from shared.processing.outbox import Outbox as Lanes
from shared.topics import Topics

Settle = Callable[[Exception | None, bool], None]
"""(error or None when acknowledged, whether the record may be in the log nevertheless)."""


class Outbox:
    """Bounded; in order of `put` per partition."""

    def __init__(self, clock: Clock, topics: Topics, *, patience_seconds: float, capacity: int) -> None:
        self._patience = patience_seconds
        self._lanes = Lanes(clock, "ingress", topics, records=capacity)

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def failing(self) -> bool:
        """The last word from Kafka was no, or there was none in time."""
        return self._lanes.failing

    def put(self, message: Message, settle: Settle | None = None, *, patient: bool = False) -> None:
        """Queue a record; a `patient` one waits as long as it takes. Raises Overloaded when too many wait."""
        if self._lanes.full:
            raise Overloaded("too many records wait for Kafka", retry_after_seconds=self._patience)
        fate = None if settle is None else partial(_settle, settle)
        self._lanes.put(message, fate, again=patient, patience_seconds=inf if patient else self._patience)

    async def send(self, message: Message) -> None:
        """Queue a record and wait for its acknowledgement. Raises LogError, Overloaded."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(error: Exception | None, maybe_written: bool) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self.put(message, settle)
        await done

    async def drain(self, producer: Producer) -> None:
        """Write until cancelled."""
        await self._lanes.run(producer)

    def expire(self) -> None:
        """Fail everything that has waited longer than the patience; called by the sweep."""
        self._lanes.expire()

    async def empty(self) -> None:
        """Wait until everything is written; for the drain at the end."""
        await self._lanes.idle()


def _settle(settle: Settle, result: Result) -> None:
    error = result if isinstance(result, Exception) else None
    settle(error, not isinstance(error, NotSent | NoDestination | RecordTooLarge))
