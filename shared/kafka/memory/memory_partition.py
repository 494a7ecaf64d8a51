"""One partition of the in-memory log: records, offsets, retention, compaction, and when each record becomes visible to readers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter

from shared.contracts.base import RECORD_BYTES
from shared.kafka.port import Message, TopicPartition, Unreadable

_OFFSET = attrgetter("offset")


@dataclass(slots=True)
class MemoryRecord:
    """Satisfies `port.Record`; shared by all readers, so nobody changes it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    visible_at: float


@dataclass(slots=True)
class _MemoryUnreadable(Unreadable):
    """What stands for a batch that no reader can unpack."""

    visible_at: float = 0.0


class MemoryPartition:
    """An append-only list with a begin and an end; offsets never move, even when records go."""

    __slots__ = ("_dense", "begin", "end", "open_from", "records", "tp", "visible_at")

    def __init__(self, tp: TopicPartition) -> None:
        self.tp = tp
        self.begin = 0
        self.end = 0
        self.records: list[MemoryRecord | _MemoryUnreadable] = []
        self.visible_at = 0.0
        self.open_from: int | None = None
        """First offset of an open transaction; all that follows is taken to be of it."""
        self._dense = True

    def append(self, messages: Sequence[Message], timestamp_ms: int, visible_at: float) -> int:
        """Write all contiguously; returns the first offset. Records become visible in order: never before an earlier one."""
        base = self.end
        self.visible_at = visible = max(self.visible_at, visible_at)
        topic, partition = self.tp
        self.records.extend(
            MemoryRecord(topic, partition, offset, timestamp_ms, message.key, message.value, _with_values(message.headers), visible)
            for offset, message in enumerate(messages, base)
        )
        self.end = base + len(messages)
        return base

    def spoil(self, count: int, timestamp_ms: int, visible_at: float) -> None:
        """A batch of `count` records that nobody can unpack. Its own head can be read: retention goes by its time."""
        topic, partition = self.tp
        self.visible_at = visible = max(self.visible_at, visible_at)
        first, self.end = self.end, self.end + count
        self.records.append(
            _MemoryUnreadable(
                topic, partition, self.end - 1, f"offsets {first} to {self.end - 1}: spoilt", timestamp_ms, visible_at=visible
            )
        )
        self._dense = self._dense and count == 1

    def read(self, position: int, limit: int, most_bytes: int, now: float) -> tuple[list[MemoryRecord | _MemoryUnreadable], int]:
        """Up to `limit` records of `most_bytes` (soft by one) from `position` on, visible at `now`, and the position after them.

        As with Kafka, the position passes over what compaction removed: at the end it is the end offset, not the last record's.
        """
        start = self._index(position)
        found = self.records[start : start + limit]
        if len(found) * RECORD_BYTES > most_bytes:
            found = _within(found, most_bytes)
        while found and found[-1].visible_at > now:
            found.pop()
        if start + len(found) == len(self.records):
            return found, max(position, self.end)
        return found, found[-1].offset + 1 if found else position

    def next_visible_at(self, position: int) -> float | None:
        """When the first record at or after `position` becomes visible; None when there is none."""
        start = self._index(position)
        return self.records[start].visible_at if start < len(self.records) else None

    def delete_before(self, offset: int) -> None:
        """Retention: the begin offset moves to `offset` (at most the end)."""
        offset = min(offset, self.end)
        if offset > self.begin:
            del self.records[: self._index(offset)]
            self.begin = offset

    def keep_last(self, records: int) -> None:
        """Retention by count."""
        if len(self.records) > records:
            first_kept = self.records[-records].offset if records else self.end
            self.delete_before(first_kept)

    def expire(self, before_ms: int) -> None:
        """Retention by time: everything in front of the first record with a timestamp of at least `before_ms` goes."""
        old = list(takewhile(lambda record: record.timestamp < before_ms, self.records))
        if old:  # what follows may be one record for a whole batch, at its last offset
            self.delete_before(old[-1].offset + 1)

    def compact(self, *, drop_tombstones: bool) -> None:
        """Only the newest record of each key stays, where it is; records without key go. Tombstones stay unless dropped."""
        newest = {record.key: record.offset for record in self.records if record.key is not None}
        self.records = [
            record
            for record in self.records
            if record.key is not None and newest[record.key] == record.offset and not (drop_tombstones and record.value is None)
        ]
        self._dense = False

    @property
    def stable_end(self) -> int:
        """Where those end who read only what was committed."""
        return self.end if self.open_from is None else self.open_from

    def begin_transaction(self) -> None:
        assert self.open_from is None, "one at a time"
        self.open_from = self.end

    def end_transaction(self, *, commit: bool) -> None:
        """The mark that ends it takes an offset and is no record; what was rolled back goes for all readers."""
        assert self.open_from is not None, "nothing is open"
        if not commit:
            del self.records[self._index(self.open_from) :]
        self.open_from = None
        self.end += 1
        self._dense = False

    def truncate(self, end: int) -> None:
        """An unclean election: records from `end` on are gone, and their offsets will be given again."""
        del self.records[self._index(end) :]
        self.end = min(self.end, end)
        self.begin = min(self.begin, self.end)

    def _index(self, offset: int) -> int:
        if self._dense:
            return max(0, min(offset - self.begin, len(self.records)))
        return bisect_left(self.records, offset, key=_OFFSET)


def _within(records: list[MemoryRecord | _MemoryUnreadable], most_bytes: int) -> list[MemoryRecord | _MemoryUnreadable]:
    size = 0
    for count, record in enumerate(records, 1):
        size += len(record.value or b"")
        if size >= most_bytes:
            return records[:count]
    return records


def _with_values(headers: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    """As records are read: a header without a value is left out."""
    return tuple((name, value) for name, value in headers if value is not None)
