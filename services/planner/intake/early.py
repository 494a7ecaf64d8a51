"""Early: what is known of a backlog behind the window of a JobQueue, so that no tenant waits behind another's records. Pure.

    window (read in order, whole) │ a second reader's way: a few records of each tenant of whom little waits here; the others passed over
    position ─────────────────────┴────────────────────────────────────────────────────────────► cursor, at most `reach` from the position

Of a tenant that was passed over nothing that lies behind is kept, so his jobs stay in their order; where the first of it lies is
remembered, and once little of him is left the second reader begins there again. So over a backlog of any length all tenants take turns, at
the price of some records read again, while one tenant alone costs a glance a record, once.
"""

from __future__ import annotations

from services.planner.state.taken import Offsets
from shared.kafka.port import Record
from shared.processing.window import ReadAhead

MUCH = 32
"""Units of one tenant, in the window or behind: while so much waits nothing more of him is kept. Of many tenants less: each finds room."""
LITTLE = 4
"""Below one part in so many of that it is little."""
UNIT_BYTES = 4096
"""A record is one unit, and one more for each of these: of 60 kB a tenant keeps three."""
_SPARE = 16
"""The reader pauses at its reach until the position has moved by one part in so many of it."""


class Early:
    """At most so many records and bytes are kept (soft by one); then the reader stops, until half is taken. `done`: taken, and all before
    the reader in order.
    """

    __slots__ = ("_far", "_kept", "_most", "_passed", "_size", "_units", "closed", "cursor", "done", "reach")

    def __init__(self, most_records: int, most_bytes: int, reach: int, done: Offsets) -> None:
        self._size, self._most, self.reach, self.done = ReadAhead(most_records, most_bytes), most_records, reach, done
        self._kept: dict[int, Record] = {}
        """By offset: read, and not taken."""
        self._units: dict[str, int] = {}
        self._passed: dict[str, int] = {}
        """Tenant → the first of his records that was passed over since the reader was there last."""
        self.cursor = 0
        """What comes next."""
        self.closed = False
        """There is no room."""
        self._far = False
        """The cursor is at its reach."""

    def __len__(self) -> int:
        return len(self._kept)

    def goes_on(self, first: int, position: int) -> int | None:
        """Where the reader goes on, at `first` at the earliest, the end of the window; None: not now."""
        if self.closed:
            return None
        self.cursor = max(self.cursor, first)
        little = max(1, self._much // LITTLE)
        back = min((max(first, at) for tenant, at in self._passed.items() if self._units.get(tenant, 0) < little), default=self.cursor)
        if back < self.cursor:
            self.cursor = back
            self._passed = {tenant: at for tenant, at in self._passed.items() if at < back and self._units.get(tenant, 0) >= little}
        self._far = self.cursor >= position + self.reach - (self.reach // _SPARE if self._far else 0)
        return None if self._far else self.cursor

    @property
    def _much(self) -> int:
        return max(1, min(MUCH, self._most // (2 * len(self._units) or 1)))

    def knows(self, offset: int) -> bool:
        """Whether it is kept, or was taken."""
        return offset in self._kept or offset in self.done

    def passes(self, tenant: str, offset: int) -> bool:
        """Whether a record of his, found there, is passed over."""
        if tenant not in self._passed and self._units.get(tenant, 0) < self._much:
            return False
        self._passed.setdefault(tenant, offset)
        return True

    def add(self, record: Record) -> None:
        """It is kept."""
        self._kept[record.offset] = record
        self._size.add(record)
        self.closed = self._size.full

    def take(self, offset: int) -> None:
        """One that is kept was taken."""
        self.drop(offset)
        self.done = Offsets(self.done.base, self.done.bits | 1 << offset - self.done.base)

    def drop(self, offset: int) -> Record | None:
        """The reader in order has come to it: it is kept there, if it is."""
        record = self._kept.pop(offset, None)
        if record is not None:
            self._size.remove(len(record.value or b""))
            self.closed = self.closed and not self._size.half_empty
        return record

    def passed(self, offset: int) -> None:
        """The reader in order has come so far."""
        if offset > self.done.base:
            self.done = Offsets(offset, self.done.since(offset))

    def count(self, tenant: str, units: int) -> None:
        """So much more of the tenant waits, in the window or behind."""
        left = self._units.get(tenant, 0) + units
        if left:
            self._units[tenant] = left
        else:
            del self._units[tenant]
