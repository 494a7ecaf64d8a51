"""Intake: the input records of one home, always drained from the consumer into bounded queues, taken class by class.

Outcomes first: they free what jobs wait for. Of jobs, interactive first up to its share; the others get the rest by weight and age, so
that batch never starves; within a class tenants take turns (`job_queue`). A class, and a tenant in it, takes no more live jobs than it
has room for, so that none fills the home (`room`).

Room: how many live jobs of each class, and of each tenant in it, a home may take. Pure. A large job counts as several.

The bound is on all of them together, so batch jobs that wait for a node would fill it and keep an interactive job out until one of
them ends. Therefore each class keeps an eighth of the bound for itself, and shares the rest.

In the same way one tenant's jobs would keep another tenant's out. Therefore a tenant may hold at most sixteen times as many live jobs of a
class as there is room left for (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998): alone it may
have sixteen seventeenths of the room, n tenants with much to do come to hold the same, and a new one finds room at once, or takes what
comes free before those that hold much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

from services.planner.intake.job_queue import QUEUE_BYTES, JobQueue
from shared.contracts.base import CLASSES, PriorityClass
from shared.kafka.port import Record
from shared.processing.window import ReadAhead
from shared.scheduling.class_shares import ClassShares
from shared.scheduling.fair_queue import TIMES_LEFT

RESERVED = 8
"""One part in so many is each class's own."""

Held = Mapping[tuple[PriorityClass, str], int]
"""Live jobs of a tenant in a class."""


class Room:
    """What is left of `bound` beside the `live` jobs of each class. Counts down as jobs are taken; `held` is counted by who enters them."""

    def __init__(
        self,
        bound: int,
        live: Mapping[PriorityClass, int],
        held: Held = MappingProxyType({}),
        *,
        closed: str | None = None,
        shut: Collection[PriorityClass] = (),
    ) -> None:
        """`closed`: a tenant, or what counts as one, of which none is taken at present. `shut`: classes of which none is."""
        self._closed, self._shut = closed, shut
        self._reserve = bound // RESERVED
        self._own = {c: self._reserve - live[c] for c in CLASSES}
        self._shared = bound - sum(max(live[c], self._reserve) for c in CLASSES)
        self._held = held

    def has(self, priority_class: PriorityClass) -> bool:
        """Whether one more job of this class may be taken."""
        return priority_class not in self._shut and self._left(priority_class) > 0

    def admits(self, priority_class: PriorityClass) -> Callable[[str], bool] | None:
        """Whether one more of a tenant's jobs may be taken now; None when any tenant's may."""
        most = TIMES_LEFT * self._left(priority_class)
        closed = self._closed
        if self._reserve - self._own[priority_class] < most:
            return None if closed is None else lambda tenant: tenant != closed
        return lambda tenant: tenant != closed and self._held.get((priority_class, tenant), 0) < most

    def take(self, priority_class: PriorityClass, places: int = 1) -> None:
        """One was taken, which counts as so many: the last one may be larger than what is left."""
        own = self._own[priority_class]
        self._own[priority_class] = own - places
        self._shared -= max(0, places - max(0, own))

    def _left(self, priority_class: PriorityClass) -> int:
        return max(self._own[priority_class], 0) + max(self._shared, 0)


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
