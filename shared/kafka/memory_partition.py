"""One partition of the in-memory log: records, offsets, retention, compaction, and when each record becomes visible to readers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from shared.kafka.port import Message, TopicPartition

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


class MemoryPartition:
    """An append-only list with a begin and an end; offsets never move, even when records go."""

    __slots__ = ("_dense", "begin", "end", "records", "tp", "visible_at")

    def __init__(self, tp: TopicPartition) -> None:
        self.tp = tp
        self.begin = 0
        self.end = 0
        self.records: list[MemoryRecord] = []
        self.visible_at = 0.0
        self._dense = True

    def append(self, messages: Sequence[Message], timestamp_ms: int, visible_at: float) -> int:
        """Write all contiguously; returns the first offset. Records become visible in order: never before an earlier one."""
        base = self.end
        self.visible_at = visible = max(self.visible_at, visible_at)
        topic, partition = self.tp
        self.records.extend(
            MemoryRecord(topic, partition, offset, timestamp_ms, message.key, message.value, message.headers, visible)
            for offset, message in enumerate(messages, base)
        )
        self.end = base + len(messages)
        return base

    def read(self, position: int, limit: int, now: float) -> tuple[list[MemoryRecord], int]:
        """Up to `limit` records from `position` on that are visible at `now`, and the position after them.

        As with Kafka, the position passes over what compaction removed: at the end it is the end offset, not the last record's.
        """
        start = self._index(position)
        found = self.records[start : start + limit]
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
        kept = next((record.offset for record in self.records if record.timestamp >= before_ms), self.end)
        self.delete_before(kept)

    def compact(self, *, drop_tombstones: bool) -> None:
        """Only the newest record of each key stays, where it is; records without key go. Tombstones stay unless dropped."""
        newest = {record.key: record.offset for record in self.records if record.key is not None}
        self.records = [
            record
            for record in self.records
            if record.key is not None and newest[record.key] == record.offset and not (drop_tombstones and record.value is None)
        ]
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
