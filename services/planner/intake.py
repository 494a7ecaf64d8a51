"""Intake: the input records of one home, always drained from the consumer into bounded queues, taken class by class.

Outcomes first: they free what jobs wait for. Of jobs, interactive first; while there is more than may be taken, the others get their
share by weights, so that batch never starves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from shared.contracts.base import CLASSES, PriorityClass
from shared.kafka.port import Record

WEIGHTS = {PriorityClass.INTERACTIVE: 16, PriorityClass.STANDARD: 4, PriorityClass.BATCH: 1}


class Queue:
    """Records of one partition, in order. Records that were seen already are skipped: a rebalance may bring them again."""

    __slots__ = ("_bound", "next_offset", "records")

    def __init__(self, bound: int, next_offset: int | None = None) -> None:
        self._bound = bound
        self.records: deque[Record] = deque()
        self.next_offset = next_offset

    def offer(self, records: Sequence[Record]) -> None:
        for record in records:
            if self.next_offset is None or record.offset >= self.next_offset:
                self.records.append(record)
                self.next_offset = record.offset + 1

    @property
    def full(self) -> bool:
        return len(self.records) >= self._bound

    @property
    def half_empty(self) -> bool:
        return len(self.records) <= self._bound // 2


class ClassOrder:
    """Weighted round robin over the classes that have something waiting; interactive begins. Keeps its place between rounds."""

    def __init__(self) -> None:
        self._credit = dict(WEIGHTS)

    def take(self, queues: dict[PriorityClass, Queue], budget: int) -> Iterator[tuple[PriorityClass, Record]]:
        """At most `budget` records, removed from their queues."""
        while budget > 0:
            waiting = [c for c in CLASSES if queues[c].records]
            if not waiting:
                return
            chosen = next((c for c in waiting if self._credit[c] > 0), None)
            if chosen is None:
                self._credit = dict(WEIGHTS)
                continue
            self._credit[chosen] -= 1
            budget -= 1
            yield chosen, queues[chosen].records.popleft()
