"""Outbox: what concurrent requests want written, drained into as few record batches as possible.

Requests do not wait for the acknowledgement; they are told of it, or of the failure, through `settle`. Everything waits at most
`patience_seconds`: then the entry fails as LogUnavailable, is dropped when it was not handed over yet, and its fate is unknown otherwise.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from shared.clock import Clock
from shared.errors import LogError, LogUnavailable, Overloaded
from shared.kafka.port import Message, Producer
from shared.telemetry import logs, metrics

_log = logs.get(__name__)
_BATCH_RECORDS = 1_000
_BATCHES = 4
"""Under way at once: a slow acknowledgement holds back nobody else, and batches stay large."""

Settle = Callable[[Exception | None, bool], None]
"""(error or None when acknowledged, whether the record may be in the log nevertheless)."""


class _Entry:
    __slots__ = ("expires_at", "message", "settle")

    def __init__(self, message: Message, settle: Settle | None, expires_at: float) -> None:
        self.message = message
        self.settle = settle
        self.expires_at = expires_at

    def end(self, error: Exception | None, maybe_written: bool) -> None:
        settle, self.settle = self.settle, None
        if settle is not None:
            settle(error, maybe_written)


class Outbox:
    """Bounded; in order of `put` per partition."""

    def __init__(self, clock: Clock, *, patience_seconds: float, capacity: int) -> None:
        self._clock = clock
        self._patience = patience_seconds
        self._capacity = capacity
        self._waiting: deque[_Entry] = deque()
        self._in_flight: dict[_Entry, None] = {}
        self._more = asyncio.Event()
        self.failing = False
        """The last word from Kafka was no, or there was none in time."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def put(self, message: Message, settle: Settle | None = None, *, patient: bool = False) -> None:
        """Queue a record; a `patient` one waits as long as it takes. Raises Overloaded when too many wait."""
        if len(self._waiting) >= self._capacity:
            raise Overloaded("too many records wait for Kafka", retry_after_seconds=self._patience)
        self._waiting.append(_Entry(message, settle, inf if patient else self._clock.monotonic() + self._patience))
        self._more.set()

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
        """Write for ever. A few batches may be under way at once; what accumulates meanwhile makes the next."""
        places = asyncio.Semaphore(_BATCHES)
        async with asyncio.TaskGroup() as writes:
            while True:
                await places.acquire()
                await self._more.wait()
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH_RECORDS))]
                if not self._waiting:
                    self._more.clear()
                if not batch:  # everything expired in the meantime
                    places.release()
                    continue
                self._in_flight.update(dict.fromkeys(batch))
                writes.create_task(self._write(producer, batch, places))

    async def _write(self, producer: Producer, batch: list[_Entry], places: asyncio.Semaphore) -> None:
        try:
            results = await producer.send_many([entry.message for entry in batch])
        except LogError as error:
            results = [error] * len(batch)
        finally:
            places.release()
            for entry in batch:
                self._in_flight.pop(entry, None)
        for entry, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                self._failed(entry, result)
            else:
                entry.end(None, True)
        self.failing = all(isinstance(result, Exception) for result in results)

    def _failed(self, entry: _Entry, error: Exception) -> None:
        metrics.SEND_FAILURES.labels("ingress").inc()
        _log.warning("send_failed", topic=entry.message.topic, reason=str(error))
        entry.end(error, getattr(error, "retryable", True))

    def expire(self, now: float) -> None:
        """Fail everything that has waited longer than the patience; called by the sweep."""
        late = [entry for entry in self._waiting if entry.expires_at <= now]
        if late:
            self._waiting = deque(entry for entry in self._waiting if entry.expires_at > now)
        for entry in late:
            entry.end(LogUnavailable(), False)
        stuck = [entry for entry in self._in_flight if entry.expires_at <= now]
        for entry in stuck:
            entry.end(LogUnavailable(), True)
        self.failing = self.failing or bool(late or stuck)

    async def empty(self) -> None:
        """Wait until everything is written; for the drain at the end."""
        while len(self):
            await self._clock.sleep(0.01)
