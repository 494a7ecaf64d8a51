"""JobQueue: the job records of one class and partition that are read and not taken; tenants take turns, as far as the window reaches.

While more waits than a handful, records are taken out of their order: deficit round robin over tenants, on a rough estimate of tokens;
one that is only sent on to its home costs next to nothing.
The position that may be committed stays at the first record not taken. A job taken from behind it is safe: the watermark holds its
history until the position has passed its record (`watermark.passable`), so a successor reads the record again and knows the job.

Records of tenants that hold much already may be passed over (`room`). Cancels wait for nobody: they need no room, and what they end may
be what keeps the room.

While there is a backlog a second reader brings what lies behind the window, too (`look_ahead`, kept in `early`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from services.planner.intake.early import UNIT_BYTES, Early
from services.planner.state.taken import NOTHING, Offsets
from shared.contracts import headers
from shared.contracts.base import INLINE_BYTES
from shared.contracts.taken import MOST_TAKEN
from shared.estimates import ANSWER_TOKENS, likely_tokens
from shared.kafka.port import Record
from shared.processing.window import ReadAhead
from shared.scheduling.fair_queue import TenantRing

HANDFUL = 16
"""So few are taken as they came: nobody waits long behind them, and looking into them costs."""
QUEUE_BYTES = 2 * 1024 * 1024
LARGE = "/large"
"""No tenant's name: in whose turn all those come that are above the inline bound, which are not looked into here."""
QUANTUM_TOKENS = 512
_LEAST_TOKENS = 64
_MOST_TOKENS = 1_000_000
_ONWARD_TOKENS = 1
"""Of a job that is only sent on to its home. As dear as one that is run here, a tenant whose records lie anywhere would get one turn in so
many as there are homes, and a small one, once its jobs are all at home, as many times what others get.
"""
_TENANT = re.compile(rb'\{"tenant":"([^"\\]*)"[,}]')
"""How a job begins that tutti has written. A hint: what is kept for its sake is looked into."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Satisfies `tenants.Piece`."""

    record: Record
    tenant: str
    cost: int
    arrived_at: float = 0.0

    @property
    def units(self) -> int:
        """How much it is of what its tenant has here."""
        return 1 + len(self.record.value or b"") // UNIT_BYTES

    @property
    def lane(self) -> Hashable:
        """A tenant's jobs are all open, or none is."""
        return self.tenant


AtHome = Callable[[str], bool]
"""Whether a job with this public id is run here (`canonical`)."""


def _waiting(record: Record, at_home: AtHome) -> _Waiting:
    """What the value says of itself. Records that are no jobs are a tenant of their own: they are read, and refused, in their turn."""
    try:
        return _Waiting(record, *_seen(record.value or b"", at_home))
    except Exception:  # whatever it is: it is told when the record is read
        return _Waiting(record, "", _LEAST_TOKENS)


def _seen(value: bytes, at_home: AtHome) -> tuple[str, int]:
    """(tenant, tokens). Raises what reading it raises."""
    if len(value) > INLINE_BYTES:
        return LARGE, _LEAST_TOKENS
    body = from_json(value)
    if not isinstance(body, dict):
        return "", _LEAST_TOKENS
    tenant, job, options = body.get("tenant", "default"), body.get("id"), body.get("options")
    if not isinstance(tenant, str):
        return "", _LEAST_TOKENS
    if isinstance(job, str) and not at_home(job):
        return tenant, _ONWARD_TOKENS
    answer = options.get("max_tokens") if isinstance(options, dict) else None
    tokens = likely_tokens(len(value)) + (answer if type(answer) is int and answer > 0 else ANSWER_TOKENS)
    return tenant, max(_LEAST_TOKENS, min(tokens, _MOST_TOKENS))


def _hint(value: bytes) -> str | None:
    """The tenant, as far as a glance tells; None: look into it."""
    if len(value) > INLINE_BYTES:
        return LARGE
    found = _TENANT.match(value)
    return None if found is None else found[1].decode(errors="replace")


def _is_cancel(record: Record) -> bool:
    return headers.find(record.headers, headers.TYPE) == b"cancel"


Admits = Callable[[str], bool]
"""Whether a job of this tenant may be taken now."""


def _any(_: str) -> bool:
    return True


class JobQueue:
    """At most `bound` records and `most_bytes` (soft by one fetch), and as many again of those behind.

    `reach`: so many offsets from the first that is not taken another one may be taken. `done`: with which records all is done already.
    """

    __slots__ = (
        "_at_home", "_bound", "_cancels", "_early", "_early_cancels", "_ring", "_unseen", "_untaken", "ahead", "backlog", "next_offset",
    )  # fmt: skip

    def __init__(
        self,
        bound: int,
        next_offset: int | None = None,
        *,
        most_bytes: int = QUEUE_BYTES,
        reach: int = MOST_TAKEN,
        done: Offsets = NOTHING,
        at_home: AtHome = _any,
    ) -> None:
        self._bound, self._at_home = bound, at_home
        self.ahead = ReadAhead(bound, most_bytes)
        self._untaken: dict[int, Record] = {}
        """By offset, ascending."""
        self._ring: TenantRing[_Waiting] = TenantRing(QUANTUM_TOKENS)
        self._cancels: deque[Record] = deque()
        self._unseen: deque[Record] = deque()
        """The last of them: not yet in the ring."""
        self.next_offset = next_offset
        """After the last record that was read."""
        self.backlog = False
        """More waits than there is room for here."""
        self._early = Early(bound, most_bytes, reach, done)
        self._early.passed(next_offset or 0)
        self._early_cancels: deque[Record] = deque()

    def __len__(self) -> int:
        return len(self._untaken)

    def __bool__(self) -> bool:
        return bool(self._untaken or self._ring)

    def offer(self, records: Sequence[Record]) -> None:
        """Records that were seen already are skipped: a rebalance may bring them again, or the second reader has."""
        early = self._early
        behind = bool(early or early.done.bits)
        for record in records:
            if self.next_offset is None or record.offset >= self.next_offset:
                self.next_offset = record.offset + 1
                if behind and record.offset in early.done:
                    continue
                known = early.drop(record.offset) if behind else None
                self.ahead.add(record)
                if _is_cancel(record):
                    if known is not None:
                        self._early_cancels.remove(known)
                    self._cancels.append(record)
                    continue
                self._untaken[record.offset] = record
                if known is None:
                    self._unseen.append(record)
        if self.next_offset is not None:
            early.passed(self.next_offset)
        self.backlog = self.backlog or self.ahead.full

    def passed(self, offset: int) -> bool:
        """The reader stands at `offset` and brought no record on its way there. False when something waits, or that was known."""
        if self._untaken or self.next_offset is None or offset <= self.next_offset:
            return False
        self.next_offset = offset
        self._early.passed(offset)
        return True

    def take(self, admits: Admits | None = None) -> Record | None:
        """The next record of those whose tenants are admitted (None: all are); None when there is none."""
        if admits is None and not self._ring and 0 < len(self._untaken) <= self._few:
            return self._taken(self._unseen.popleft())
        self._look()
        taken = self._ring.take(_any if admits is None else admits)
        if taken is None:
            return None
        self._early.count(taken.tenant, -taken.units)
        return self._taken(taken.record)

    def _taken(self, record: Record) -> Record:
        if self._untaken.pop(record.offset, None) is None:
            self._early.take(record.offset)
        else:
            self.ahead.remove(len(record.value or b""))
            self.backlog = self.backlog and len(self._untaken) > self._few
        return record

    def take_cancel(self) -> Record | None:
        """The next record that is no job but a cancel; None when there is none."""
        if self._cancels:
            record = self._cancels.popleft()
            self.ahead.remove(len(record.value or b""))
            return record
        if self._early_cancels:
            record = self._early_cancels.popleft()
            self._early.take(record.offset)
            return record
        return None

    @property
    def holds_cancel(self) -> bool:
        return bool(self._cancels or self._early_cancels)

    def holds(self, admits: Admits | None) -> bool:
        """Whether `take` would find one."""
        if admits is None or not self:
            return bool(self)
        self._look()
        return self._ring.any_open(admits)

    def _look(self) -> None:
        """Put what lies within reach into the ring."""
        reach = next(iter(self._untaken), 0) + self._early.reach
        while self._unseen and self._unseen[0].offset < reach:
            self._enter(_waiting(self._unseen.popleft(), self._at_home))

    def _enter(self, waiting: _Waiting) -> None:
        self._ring.add(waiting)
        self._early.count(waiting.tenant, waiting.units)

    @property
    def _few(self) -> int:
        return min(HANDFUL, self._bound // 4)

    @property
    def position(self) -> int | None:
        """The first offset that is not taken; None while nothing is known."""
        first = next(iter(self._untaken), self.next_offset)
        return first if first is None or not self._cancels else min(first, self._cancels[0].offset)

    def done_since(self, base: int) -> Offsets:
        """What is taken, from `base` on, which is not behind the position."""
        waiting = bytearray(max(0, (self.next_offset or 0) - base) // 8 + 1)
        for offset in (*self._untaken, *(record.offset for record in self._cancels)):
            waiting[offset - base >> 3] |= 1 << (offset - base & 7)
        return Offsets(base, self._early.done.since(base) & ~int.from_bytes(waiting, "little"))

    # Behind the window

    @property
    def looks_from(self) -> int | None:
        """Where the second reader goes on; None: it need not, or must not now."""
        position = self.position
        if not self.backlog or position is None or self.next_offset is None:
            return None
        return self._early.goes_on(self.next_offset, position)

    def look_ahead(self, start: int, records: Sequence[Record], reached: int, *, cancels: int) -> bool:
        """What the second reader found from `start` on, up to `reached`, with at most so many cancels; returns whether it is of use."""
        early, position = self._early, self.position
        if start != early.cursor or position is None or self.next_offset is None:
            return False
        self._look()
        before = len(early)
        for record in records:
            if early.closed or record.offset >= position + early.reach:
                early.cursor = record.offset
                break
            if record.offset >= self.next_offset and record.offset >= start and not early.knows(record.offset):
                self._look_at(record, cancels)
        else:
            early.cursor = max(start, reached)
        return len(early) > before

    def _look_at(self, record: Record, cancels: int) -> None:
        if _is_cancel(record):
            if len(self._early_cancels) < cancels:
                self._early_cancels.append(record)
                self._early.add(record)
            return
        tenant = _hint(record.value or b"")
        if tenant is not None and self._early.passes(tenant, record.offset):
            return
        waiting = _waiting(record, self._at_home)
        if waiting.tenant == tenant or not self._early.passes(waiting.tenant, record.offset):
            self._early.add(record)
            self._enter(waiting)
