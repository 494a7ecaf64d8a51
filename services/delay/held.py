"""HeldRecords: records that wait in memory for their moment, earliest first. Pure; time is passed in (epoch seconds).

A record leaves its tier when it was delayed for as long as the tier says, or when it is due if that is earlier. Then it hops on, or,
in its last second, is held until it is due. Its offset stays uncommitted until it has been sent on.

A wait of so many seconds is counted here, from when the record is read; what has been waited travels on with it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from shared.contracts import headers
from shared.contracts.delayed import Delayed
from shared.kafka.port import Message, Record, tenant_of
from shared.processing.delays import SMALLEST_TIER, next_hop
from shared.processing.window import Window
from shared.topics import Topics


@dataclass(slots=True)
class Waiter:
    """One record. Epoch seconds by this machine's clock: `due_at`, `ready_at` when to look at it again, `read_at` if it counts seconds."""

    record: Record
    tier: str
    due_at: float
    ready_at: float
    window: Window
    read_at: float | None = None

    def finish(self) -> None:
        """It was sent on: its record may be committed past."""
        self.window.finish(self.record.offset)


class HeldRecords:
    """A heap by `ready_at`. Bounded by the windows that feed it."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waiter]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_at(self) -> float | None:
        """When the earliest is ready; None when nothing is held."""
        return self._heap[0][0] if self._heap else None

    def add(self, waiter: Waiter) -> None:
        self._count += 1
        heapq.heappush(self._heap, (waiter.ready_at, self._count, waiter))

    def take(self, now: float, limit: int) -> list[Waiter]:
        """Remove and return up to `limit` that must be sent now. What is in its last second is held on; what was lost is dropped."""
        taken: list[Waiter] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < limit:
            waiter = heapq.heappop(self._heap)[2]
            if waiter.window.lost:
                continue
            if waiter.due_at > now and next_hop(waiter.due_at, now) is None:
                waiter.ready_at = waiter.due_at
                self.add(waiter)
            else:
                taken.append(waiter)
        return taken

    def drop_lost(self) -> None:
        """Forget the records of partitions that have another owner now."""
        self._heap = [entry for entry in self._heap if not entry[2].window.lost]
        heapq.heapify(self._heap)


def onward(waiter: Waiter, topics: Topics, now: float) -> Message:
    """The record that `waiter` becomes: what it carries when that is due, else itself in its next tier."""
    record, later = waiter.record, waiter.due_at > now
    tier = topics.delay(next_hop(waiter.due_at, now) or SMALLEST_TIER)
    if later and waiter.read_at is None:
        return Message(tier, record.value, record.key, headers=tuple(record.headers), tenant=tenant_of(record))
    delayed = Delayed.model_validate_json(record.value or b"")
    waited = delayed.waited_seconds + (0.0 if waiter.read_at is None else max(0.0, now - waiter.read_at))
    if later:
        rest = delayed.model_copy(update={"seconds": waiter.due_at - now, "waited_seconds": waited})
        return Message(tier, rest.to_bytes(), record.key, headers=tuple(record.headers), tenant=tenant_of(record))
    found = delayed.headers if headers.find(delayed.headers, headers.WAS_DELAYED) else (*delayed.headers, (headers.WAS_DELAYED, b"1"))
    if waiter.read_at is not None:
        found = (*(header for header in found if header[0] != headers.WAITED), headers.waiting(waited))
    return Message(delayed.topic, delayed.value, delayed.key, delayed.partition, found, tenant_of(record))
