"""SettledIds: client-given ids of jobs that ended lately, so that a repeated submission gets the same result and no second run."""

from __future__ import annotations

from collections import OrderedDict

from shared.contracts.event import JobSettled


class SettledIds:
    """Bounded by count and age; the oldest leaves first."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count, self._seconds = count, seconds
        self._entries: OrderedDict[str, tuple[JobSettled, float]] = OrderedDict()

    def add(self, settled: JobSettled, now: float) -> None:
        """Remember a job with a client-given id; others cannot come again."""
        if not settled.client_id:
            return
        self._entries[settled.job] = (settled, now)
        self._entries.move_to_end(settled.job)
        while len(self._entries) > self._count:
            self._entries.popitem(last=False)

    def add_older(self, settled: JobSettled, ended_at: float) -> bool:
        """Remember one that ended before all others here; returns False when there is no room. Newest first, please."""
        if len(self._entries) >= self._count:
            return False
        if settled.job not in self._entries:
            self._entries[settled.job] = (settled, ended_at)
            self._entries.move_to_end(settled.job, last=False)
        return True

    def find(self, job: str, now: float) -> JobSettled | None:
        """The settle event of this id, if it ended within the window."""
        entry = self._entries.get(job)
        if entry is None or now - entry[1] > self._seconds:
            return None
        return entry[0]
