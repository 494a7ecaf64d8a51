"""ReadAhead: what was read of a partition and is not done with, counted in records and bytes. Pure.

Both bounds are soft by one fetch: a partition above one of them is paused, and resumed once it is at half of both.
"""

from __future__ import annotations

from shared.kafka.port import Record

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
