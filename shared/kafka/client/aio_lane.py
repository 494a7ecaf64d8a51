"""Batching of sends: a lane per partition collects parcels while a batch of that partition is on its way, then sends them as one.

One batch a partition is outstanding, as aiokafka itself allows one in flight; so concurrent senders share batches without any linger,
a record costs no future of its own, and an appended parcel is a batch of its own.

A bound on what is in flight: callers beyond it wait in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import dataclass, field

from shared.errors import SendFailed
from shared.kafka.port import Message, TopicPartition
from shared.kafka.settings import SEND_BATCH_BYTES


class InFlight:
    """Counts bytes and records. A request larger than the whole window passes alone, when nothing else is in flight."""

    __slots__ = ("_bytes", "_max_bytes", "_max_records", "_records", "_waiting")

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._max_bytes, self._max_records = max_bytes, max_records
        self._bytes = self._records = 0
        self._waiting: deque[tuple[int, int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int, records: int) -> None:
        """Wait for room, first come first served. Cancelling a waiter gives its place up."""
        if not self._waiting and self._fits(size, records):
            self._bytes += size
            self._records += records
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, records, turn))
        try:
            await turn
        except asyncio.CancelledError:
            entered = turn.done() and not turn.cancelled()
            turn.cancel()
            self.leave(size if entered else 0, records if entered else 0)
            raise

    def leave(self, size: int, records: int) -> None:
        self._bytes -= size
        self._records -= records
        while self._waiting:
            size, records, turn = self._waiting[0]
            if not turn.done():
                if not self._fits(size, records):
                    return
                self._bytes += size
                self._records += records
                turn.set_result(None)
            self._waiting.popleft()

    def _fits(self, size: int, records: int) -> bool:
        if self._records == 0:
            return True
        return self._bytes + size <= self._max_bytes and self._records + records <= self._max_records


@dataclass(slots=True, eq=False)
class Parcel:
    """Messages of one caller for one partition. `done` gets the offsets' runs [(count, base)] or the error; its caller may be gone."""

    messages: Sequence[Message]
    sizes: Sequence[int]
    alone: bool
    done: asyncio.Future[list[tuple[int, int]]]
    sent: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)

    def settle(self, count: int, base: int) -> None:
        """`count` more messages lie from `base` on (-1: unknown)."""
        self.runs.append((count, base))
        if sum(run[0] for run in self.runs) == len(self.messages) and not self.done.done():
            self.done.set_result(self.runs)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(copy(error))


Load = list[tuple[Parcel, int]]
"""Which parcels a batch carries, and how many messages of each."""
Transmit = Callable[[TopicPartition, Sequence[Message]], Awaitable[int]]
"""Sends one batch; returns its base offset or raises."""


class PartitionLane:
    """The queue of one partition. `pump` runs as a task while there is something to send."""

    __slots__ = ("_linger", "_transmit", "busy", "partition", "queue")

    def __init__(self, partition: TopicPartition, transmit: Transmit, linger: Callable[[], Awaitable[None]] | None) -> None:
        self.partition = partition
        self.queue: deque[Parcel] = deque()
        self.busy = False
        self._transmit = transmit
        self._linger = linger

    async def pump(self) -> None:
        """Send until the queue is empty."""
        try:
            if self._linger is not None:
                await self._linger()
            while self.queue:
                load, messages = self._load()
                await self._send(load, messages)
        finally:
            self.busy = False
            while self.queue:  # only when cancelled: the producer closes
                self.queue.popleft().fail(SendFailed("the producer was closed"))

    async def _send(self, load: Load, messages: Sequence[Message]) -> None:
        try:
            base = await self._transmit(self.partition, messages)
        except asyncio.CancelledError:
            for parcel, _ in load:
                parcel.fail(SendFailed("the producer was closed"))
            raise
        except Exception as error:
            for parcel, _ in load:
                self._drop(parcel, error)
            return
        for parcel, count in load:
            parcel.settle(count, base)
            base = base + count if base >= 0 else -1

    def _drop(self, parcel: Parcel, error: Exception) -> None:
        """A parcel of which a part failed: the rest is not sent, so that its order is kept."""
        parcel.fail(error)
        if self.queue and self.queue[0] is parcel:
            self.queue.popleft()

    def _load(self) -> tuple[Load, Sequence[Message]]:
        """The next batch: an `alone` parcel as it is, else whole or partial parcels up to the batch size."""
        first = self.queue[0]
        if first.alone:
            self.queue.popleft()
            return [(first, len(first.messages))], first.messages
        load: Load = []
        messages: list[Message] = []
        room = SEND_BATCH_BYTES
        while self.queue and not self.queue[0].alone:
            parcel = self.queue[0]
            count, room = _fitting(parcel, room, at_least_one=not messages)
            if count:
                messages.extend(parcel.messages[parcel.sent : parcel.sent + count])
                load.append((parcel, count))
                parcel.sent += count
            if parcel.sent < len(parcel.messages):
                break
            self.queue.popleft()
        return load, messages


def _fitting(parcel: Parcel, room: int, *, at_least_one: bool) -> tuple[int, int]:
    """How many of the parcel's remaining messages fit into `room` bytes, and the room left."""
    count = 0
    for size in parcel.sizes[parcel.sent :]:
        if size > room and not (at_least_one and count == 0):
            break
        count += 1
        room -= size
    return count, room
