"""Timers: when each job next wants attention. One entry a job; setting it anew is cheap, and nothing dead piles up.

Due times fall into buckets of 10 ms, so a timer fires up to that much late, never early.
"""

from __future__ import annotations

import heapq
import math

_BUCKET_SECONDS = 0.01
_EMPTY_BUCKETS = 256
"""Emptied buckets that may wait for their time; beyond that, and beyond the number of timers, they are swept out."""


class Timers:
    """job id → due time (monotonic seconds)."""

    def __init__(self) -> None:
        self._bucket_of: dict[str, int] = {}
        self._buckets: dict[int, set[str]] = {}
        self._order: list[int] = []
        self._empty = 0

    def __len__(self) -> int:
        return len(self._bucket_of)

    def set(self, job: str, due_at: float) -> None:
        """Replace the job's timer; infinity removes it."""
        scaled = due_at / _BUCKET_SECONDS
        if math.isinf(scaled):
            self.clear(job)
            return
        # A deadline that passed before this machine started lies before its clock's zero.
        bucket = max(0, math.ceil(scaled))
        if self._bucket_of.get(job) == bucket:
            return
        self.clear(job)
        self._bucket_of[job] = bucket
        members = self._buckets.get(bucket)
        if members is None:
            self._buckets[bucket] = {job}
            heapq.heappush(self._order, bucket)
        else:
            self._empty -= not members
            members.add(job)

    def clear(self, job: str) -> None:
        """Forget the job's timer, if it has one."""
        bucket = self._bucket_of.pop(job, None)
        if bucket is None:
            return
        members = self._buckets[bucket]
        members.discard(job)
        self._empty += not members
        if self._empty > _EMPTY_BUCKETS + len(self._bucket_of):
            self._sweep()

    def next_due(self) -> float:
        """Monotonic seconds of the earliest timer; infinity when there is none."""
        while self._order and not self._buckets[self._order[0]]:
            del self._buckets[heapq.heappop(self._order)]
            self._empty -= 1
        return self._order[0] * _BUCKET_SECONDS if self._order else math.inf

    def pop_due(self, now: float) -> list[str]:
        """Take the jobs whose timer is due, earliest first; within a bucket by id, so that runs repeat."""
        due: list[str] = []
        while self.next_due() <= now:
            bucket = heapq.heappop(self._order)
            members = sorted(self._buckets.pop(bucket))
            for job in members:
                del self._bucket_of[job]
            due.extend(members)
        return due

    def _sweep(self) -> None:
        """Most timers are moved long before they are due, and leave an empty bucket behind."""
        self._buckets = {bucket: members for bucket, members in self._buckets.items() if members}
        self._order = sorted(self._buckets)
        self._empty = 0
