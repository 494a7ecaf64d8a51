"""JobQueue: the job records of one class and partition that are read and not taken; tenants take turns, as far as the window reaches.

While more waits than a handful, records are taken out of their order: deficit round robin over tenants, on a rough estimate of tokens.
The position that may be committed stays at the first record not taken. A job taken from behind it is safe: the watermark holds its
history until the position has passed its record (`watermark.passable`), so a successor reads the record again and knows the job.

Records of tenants that hold much already may be passed over (`room`). Cancels wait for nobody: they need no room, and what they end may
be what keeps the room.

What it cannot do: see past its window. Behind more than that many records of one tenant another one waits in Kafka.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from shared.contracts import headers
from shared.contracts.base import INLINE_BYTES
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


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Satisfies `tenants.Piece`."""

    record: Record
    tenant: str
    cost: int
    arrived_at: float = 0.0

    @property
    def lane(self) -> Hashable:
        """A tenant's jobs are all open, or none is."""
        return self.tenant


def _waiting(record: Record) -> _Waiting:
    """What the value says of itself. Records that are no jobs are a tenant of their own: they are read, and refused, in their turn."""
    try:
        tenant, tokens = _seen(record.value or b"")
    except Exception:  # whatever it is: it is told when the record is read
        tenant, tokens = "", 0
    return _Waiting(record, tenant, max(_LEAST_TOKENS, min(tokens, _MOST_TOKENS)))


def _seen(value: bytes) -> tuple[str, int]:
    """(tenant, tokens). Raises what reading it raises."""
    if len(value) > INLINE_BYTES:
        return LARGE, 0
    body = from_json(value)
    if not isinstance(body, dict):
        return "", 0
    tenant, options = body.get("tenant", "default"), body.get("options")
    answer = options.get("max_tokens") if isinstance(options, dict) else None
    tokens = likely_tokens(len(value)) + (answer if type(answer) is int and answer > 0 else ANSWER_TOKENS)
    return tenant if isinstance(tenant, str) else "", tokens


Admits = Callable[[str], bool]
"""Whether a job of this tenant may be taken now."""


def _any(_tenant: str) -> bool:
    return True


class JobQueue:
    """At most `bound` records and `most_bytes` (soft by one fetch); those within `bound` offsets of the first take part in the turns."""

    __slots__ = ("_bound", "_cancels", "_ring", "_unseen", "_untaken", "ahead", "next_offset")

    def __init__(self, bound: int, next_offset: int | None = None, *, most_bytes: int = QUEUE_BYTES) -> None:
        self._bound = bound
        self.ahead = ReadAhead(bound, most_bytes)
        self._untaken: dict[int, Record] = {}
        """By offset, ascending."""
        self._ring: TenantRing[_Waiting] = TenantRing(QUANTUM_TOKENS)
        self._cancels: deque[Record] = deque()
        self._unseen: deque[Record] = deque()
        """The last of them: not yet in the ring."""
        self.next_offset = next_offset
        """After the last record that was read."""

    def __len__(self) -> int:
        return len(self._untaken)

    def offer(self, records: Sequence[Record]) -> None:
        """Records that were seen already are skipped: a rebalance may bring them again."""
        for record in records:
            if self.next_offset is None or record.offset >= self.next_offset:
                self.next_offset = record.offset + 1
                self.ahead.add(record)
                if headers.find(record.headers, headers.TYPE) == b"cancel":
                    self._cancels.append(record)
                    continue
                self._untaken[record.offset] = record
                self._unseen.append(record)

    def passed(self, offset: int) -> bool:
        """The reader stands at `offset` and brought no record on its way there. False when something waits, or that was known."""
        if self._untaken or self.next_offset is None or offset <= self.next_offset:
            return False
        self.next_offset = offset
        return True

    def take(self, admits: Admits | None = None) -> Record | None:
        """The next record of those whose tenants are admitted (None: all are); None when there is none."""
        if admits is None and not self._ring and 0 < len(self._untaken) <= min(HANDFUL, self._bound // 4):
            return self._taken(self._unseen.popleft())
        self._look()
        taken = self._ring.take(_any if admits is None else admits)
        return None if taken is None else self._taken(taken.record)

    def _taken(self, record: Record) -> Record:
        del self._untaken[record.offset]
        self.ahead.remove(len(record.value or b""))
        return record

    def take_cancel(self) -> Record | None:
        """The next record that is no job but a cancel; None when there is none."""
        if not self._cancels:
            return None
        record = self._cancels.popleft()
        self.ahead.remove(len(record.value or b""))
        return record

    @property
    def holds_cancel(self) -> bool:
        return bool(self._cancels)

    def holds(self, admits: Admits | None) -> bool:
        """Whether `take` would find one."""
        if admits is None or not self._untaken:
            return bool(self._untaken)
        self._look()
        return self._ring.any_open(admits)

    def _look(self) -> None:
        """Put what lies within reach into the ring."""
        reach = next(iter(self._untaken), 0) + self._bound
        while self._unseen and self._unseen[0].offset < reach:
            self._ring.add(_waiting(self._unseen.popleft()))

    @property
    def position(self) -> int | None:
        """The first offset that is not taken; None while nothing is known."""
        first = next(iter(self._untaken), self.next_offset)
        return first if first is None or not self._cancels else min(first, self._cancels[0].offset)
