"""Window: what has been read of one partition and is not finished. Taken out of order, committed up to the first unfinished. Pure.

    read ──► buffered ──► open ──► finished
             (not looked at)  (at most `open`, spread over at most `span` offsets)

So one record that waits long holds back neither the others of its partition nor more than `span` offsets of progress.
After a crash at most `span` records are read again.

ReadAhead: what was read of a partition and is not done with, counted in records and bytes. Pure.

Both bounds are soft by one fetch: a partition above one of them is paused, and resumed once it is at half of both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from shared.kafka.port import Record, TopicPartition
from shared.processing.dead_letters import DeadLetterCap

_RECORD_OVERHEAD_BYTES = 512
"""What a record costs in memory besides its value."""


class ReadAhead:
    """Whoever takes a record in, or is done with it, says so."""

    __slots__ = ("_bytes", "_most_bytes", "_most_records", "_records")

    def __init__(self, most_records: int, most_bytes: int) -> None:
        self._most_records, self._most_bytes = most_records, most_bytes
        self._records = self._bytes = 0

    def __len__(self) -> int:
        return self._records

    def add(self, record: Record) -> None:
        self._records += 1
        self._bytes += len(record.value or b"") + _RECORD_OVERHEAD_BYTES

    def remove(self, value_bytes: int) -> None:
        self._records -= 1
        self._bytes -= value_bytes + _RECORD_OVERHEAD_BYTES

    @property
    def full(self) -> bool:
        return self._records >= self._most_records or self._bytes >= self._most_bytes

    @property
    def half_empty(self) -> bool:
        return 2 * self._records <= self._most_records and 2 * self._bytes <= self._most_bytes


@dataclass(frozen=True, slots=True)
class WindowBounds:
    """Of one partition. `records` and `bytes` bound what is read ahead (`ReadAhead`)."""

    open: int = 64
    span: int = 1024
    records: int = 1024
    bytes: int = 1_048_576


class Window:
    """One partition's records, from read to finished. A window that was lost in a rebalance is dead: `lost` is set."""

    __slots__ = ("_ahead", "_bounds", "_buffered", "_cap", "_open", "lost", "next_offset", "partition", "paused")

    def __init__(self, partition: TopicPartition, bounds: WindowBounds, next_offset: int, cap: DeadLetterCap | None = None) -> None:
        self.partition = partition
        self.next_offset = next_offset
        """Offset after the last record received."""
        self.lost = False
        self.paused = False
        self._bounds = bounds
        self._cap = cap
        self._buffered: deque[Record] = deque()
        self._open: dict[int, int] = {}  # offset → bytes of its value, in order of offsets
        self._ahead = ReadAhead(bounds.records, bounds.bytes)

    def __len__(self) -> int:
        """Records received and not finished."""
        return len(self._buffered) + len(self._open)

    @property
    def buffered(self) -> int:
        """Records received and not taken."""
        return len(self._buffered)

    @property
    def full(self) -> bool:
        return self._ahead.full

    @property
    def half_empty(self) -> bool:
        return self._ahead.half_empty

    @property
    def commit_offset(self) -> int:
        """The first offset that is not finished: where the next owner must begin."""
        if self._open:
            return next(iter(self._open))
        return self._buffered[0].offset if self._buffered else self.next_offset

    def receive(self, records: Sequence[Record]) -> None:
        """Records in order of offsets, none below `next_offset`."""
        assert records[0].offset >= self.next_offset, "a log that went back needs a new window"
        self._buffered.extend(records)
        for record in records:
            self._ahead.add(record)
        self.next_offset = records[-1].offset + 1

    def take(self) -> Record | None:
        """The next record, which is then open; None when there is none, the window is full, or too many of its records died."""
        if self.stopped is not None or not self._buffered or len(self._open) >= self._bounds.open:
            return None
        record = self._buffered[0]
        if record.offset - self.commit_offset >= self._bounds.span:
            return None
        self._buffered.popleft()
        self._open[record.offset] = len(record.value or b"")
        if self._cap is not None:
            self._cap.read()
        return record

    @property
    def stopped(self) -> str | None:
        """Why nothing more is taken out. The window then fills up, and its partition is paused like any other's."""
        return None if self._cap is None else self._cap.reason

    def died(self, record: Record) -> None:
        """A record that was taken goes to the dead letters."""
        if self._cap is not None:
            self._cap.died(record)

    def finish(self, offset: int) -> None:
        """The open record at `offset` needs nothing more. Finishing twice is harmless."""
        value_bytes = self._open.pop(offset, None)
        if value_bytes is not None:
            self._ahead.remove(value_bytes)
