"""SettledIds: client-given ids of jobs that ended lately, so that a repeated submission gets the same result and no second run."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from shared.contracts.event import JobSettled


class _Entry(NamedTuple):
    value: bytes
    """The settle event's JSON: an eighth of the memory of its objects, and hardly one is ever asked for."""
    ended_at: float
    """Monotonic seconds."""


class SettledIds:
    """Bounded by count, by the bytes of the settle events, and by age in seconds; the oldest leaves first."""

    def __init__(self, count: int, seconds: float, max_bytes: int) -> None:
        self.count = count
        self._seconds, self._max_bytes = seconds, max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    def add(self, settled: JobSettled, now: float, value: bytes | None = None) -> None:
        """Remember a job with a client-given id; others cannot come again. `value`: the event's JSON, if it is at hand."""
        if not settled.client_id:
            return
        self._forget(settled.job)
        self._keep(settled.job, _Entry(value or settled.to_bytes(), now))
        while len(self._entries) > self.count or self._bytes > self._max_bytes:
            self._forget(next(iter(self._entries)))

    def add_older(self, job: str, value: bytes, ended_at: float) -> bool:
        """Remember one that ended before all others here; returns False when there is no room. Newest first, please."""
        if len(self._entries) >= self.count or self._bytes + len(value) > self._max_bytes:
            return False
        if job not in self._entries:
            self._keep(job, _Entry(value, ended_at))
            self._entries.move_to_end(job, last=False)
        return True

    def find(self, job: str, now: float) -> JobSettled | None:
        """The settle event of this id, if it ended within the window."""
        entry = self._entries.get(job)
        if entry is None or now - entry.ended_at > self._seconds:
            return None
        return JobSettled.model_validate_json(entry.value)

    def _keep(self, job: str, entry: _Entry) -> None:
        self._entries[job] = entry
        self._bytes += len(entry.value)

    def _forget(self, job: str) -> None:
        entry = self._entries.pop(job, None)
        if entry is not None:
            self._bytes -= len(entry.value)
