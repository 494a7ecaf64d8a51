"""Timers: when each job next wants attention. One entry a job; setting it anew is cheap, and nothing dead piles up.

Due times fall into buckets of 10 ms, so a timer fires up to that much late, never early.
"""

from __future__ import annotations

import heapq
import math

_BUCKET_SECONDS = 0.01


class Timers:
    """job id → due time (monotonic seconds)."""

    def __init__(self) -> None:
        self._bucket_of: dict[str, int] = {}
        self._buckets: dict[int, set[str]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._bucket_of)

    def set(self, job: str, due_at: float) -> None:
        """Replace the job's timer; infinity removes it."""
        bucket = -1 if math.isinf(due_at) else math.ceil(due_at / _BUCKET_SECONDS)
        if self._bucket_of.get(job, -1) == bucket:
            return
        self.clear(job)
        if bucket < 0:
            return
        self._bucket_of[job] = bucket
        members = self._buckets.get(bucket)
        if members is None:
            self._buckets[bucket] = {job}
            heapq.heappush(self._order, bucket)
        else:
            members.add(job)

    def clear(self, job: str) -> None:
        """Forget the job's timer, if it has one."""
        bucket = self._bucket_of.pop(job, None)
        if bucket is not None:
            self._buckets[bucket].discard(job)

    def next_due(self) -> float:
        """Monotonic seconds of the earliest timer; infinity when there is none."""
        while self._order and not self._buckets[self._order[0]]:
            del self._buckets[heapq.heappop(self._order)]
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
