"""Intake: the input records of one home, always drained from the consumer into bounded queues, taken class by class.

Outcomes first: they free what jobs wait for. Of jobs, interactive first up to its share; the others get the rest by weight and age, so
that batch never starves; within a class tenants take turns (`job_queue`). A class, and a tenant in it, takes no more live jobs than it
has room for, so that none fills the home (`room`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from services.planner.intake.job_queue import QUEUE_BYTES, JobQueue
from services.planner.intake.room import Room
from shared.contracts.base import CLASSES, PriorityClass
from shared.kafka.port import Record
from shared.processing.read_ahead import ReadAhead
from shared.scheduling.class_shares import ClassShares

BURST_RECORDS = 64.0
"""Interactive jobs that may be taken before their share binds."""
ROUND_BYTES = 512 * 1024
"""Of the records of one round, soft by one: what is made of them is a few times as much, in all homes at once."""


class Queue:
    """Records of `outcomes`, in order. Records that were seen already are skipped: a rebalance may bring them again."""

    __slots__ = ("ahead", "next_offset", "records")

    def __init__(self, bound: int, next_offset: int | None = None, *, most_bytes: int = QUEUE_BYTES) -> None:
        self.ahead = ReadAhead(bound, most_bytes)
        self.records: deque[Record] = deque()
        self.next_offset = next_offset

    def offer(self, records: Sequence[Record]) -> None:
        for record in records:
            if self.next_offset is None or record.offset >= self.next_offset:
                self.records.append(record)
                self.ahead.add(record)
                self.next_offset = record.offset + 1

    def passed(self, offset: int) -> bool:
        """As `JobQueue.passed`."""
        if self.records or self.next_offset is None or offset <= self.next_offset:
            return False
        self.next_offset = offset
        return True

    def take(self) -> Record:
        """The next. There is one."""
        record = self.records.popleft()
        self.ahead.remove(len(record.value or b""))
        return record


class ClassOrder:
    """Which class's next record is taken, by the shares of all classes (`class_shares`), each record counting one. `places`: how much
    of the room a record of so many bytes takes.
    """

    def __init__(self, interactive_share: float, places: Callable[[int], int] = lambda _: 1) -> None:
        self._shares, self._places = ClassShares(interactive_share, BURST_RECORDS), places
        self._since: dict[PriorityClass, float] = {}
        """When each class that waits was last served, or began to wait; monotonic seconds."""

    def take(self, queues: Mapping[PriorityClass, JobQueue], budget: int, room: Room, now: float) -> Iterator[tuple[PriorityClass, Record]]:
        """At most `budget` records and ROUND_BYTES, of each class and tenant at most what there is room for, removed from their queues."""
        waiting = {c for c in CLASSES if queues[c]}
        self._since = {c: self._since.get(c, now) for c in waiting}
        ages = {c: now - self._since[c] for c in CLASSES if c in waiting and room.has(c)}
        left = ROUND_BYTES
        while budget > 0 and left > 0 and ages:
            chosen = self._shares.order(ages)[0]
            record = queues[chosen].take(room.admits(chosen))
            if record is None:
                del ages[chosen]
                continue
            self._shares.served(chosen, 1.0, ages)
            size = len(record.value or b"")
            room.take(chosen, self._places(size))
            budget, left = budget - 1, left - size
            self._since[chosen] = now
            yield chosen, record
            ages = {c: age for c, age in ages.items() if queues[c] and room.has(c)}
