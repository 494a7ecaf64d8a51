"""Backlog: can a deadline be met? An estimate from the measured settle rate and what waits before a new job. Pure; time is passed in.

    waiting of a class = unread (end offsets of jobs.<class> - what planners took) + live (accepted, not settled)
    wait of a new job  = waiting of its class and of more urgent ones / jobs settled a second while there was work

What planners took is known from their events, and from their group's committed offsets: these know it also for what was taken before
this instance began to read, and for records that never become a job (cancels, dead letters, repeated ids).
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.contracts.base import CLASSES, PriorityClass

_HALF_LIFE_SECONDS = 30.0
_UNKNOWN_SECONDS = 60.0
"""When a class is full and nothing is known of the rate."""
_MIN_SETTLED = 10.0
"""Fewer settled jobs (decayed) say nothing about the capacity."""

Place = tuple[PriorityClass, int]
"""A partition of `jobs.<class>`."""


class Backlog:
    """Counts jobs per class; measures the rate at which they end while there is work, so that idle time does not lower it."""

    def __init__(self) -> None:
        self._live = dict.fromkeys(CLASSES, 0)
        self._unread = dict.fromkeys(CLASSES, 0)
        self._next: dict[Place, int] = {}
        self._settled_since = 0
        self._settled = 0.0
        self._busy_seconds = 0.0
        self._was_busy = False
        self._observed_at: float | None = None

    def on_accepted(self, priority_class: PriorityClass, partition: int | None, offset: int | None) -> None:
        """A planner took a job that lay at `offset` of its jobs topic."""
        self._live[priority_class] += 1
        if partition is not None and offset is not None:
            place = (priority_class, partition)
            self._next[place] = max(self._next.get(place, 0), offset + 1)

    def on_settled(self, priority_class: PriorityClass) -> None:
        """A job ended."""
        self._settled_since += 1
        self._live[priority_class] = max(0, self._live[priority_class] - 1)

    def observe(self, ends: Mapping[Place, int], now: float, taken: Mapping[Place, int] | None = None) -> None:
        """End offsets of the jobs topics, read at `now` (monotonic seconds), and the next offsets that planners will take.

        Where these are not known, what lay there before the first look counts as taken.
        """
        self._measure_rate(now)
        unread = dict.fromkeys(CLASSES, 0)
        for place, end in ends.items():
            before = self._next.get(place)
            known = None if taken is None else taken.get(place)
            following = self._next[place] = max((offset for offset in (before, known) if offset is not None), default=end)
            unread[place[0]] += max(0, end - following)
        self._unread = unread
        self._was_busy = any(self.waiting(c) for c in CLASSES)

    def _measure_rate(self, now: float) -> None:
        elapsed = 0.0 if self._observed_at is None else max(0.0, now - self._observed_at)
        self._observed_at = now
        decay = 0.5 ** (elapsed / _HALF_LIFE_SECONDS)
        self._settled = self._settled * decay + self._settled_since
        busy = elapsed if self._was_busy or self._settled_since else 0.0
        self._busy_seconds = self._busy_seconds * decay + busy
        self._settled_since = 0

    def waiting(self, priority_class: PriorityClass) -> int:
        """Jobs of the class that have not ended, in Kafka or with a planner."""
        return self._live[priority_class] + self._unread[priority_class]

    @property
    def settled_per_second(self) -> float | None:
        """Measured capacity; None while too little is known."""
        if self._settled < _MIN_SETTLED or self._busy_seconds <= 0:
            return None
        return self._settled / self._busy_seconds

    def wait_seconds(self, priority_class: PriorityClass) -> float | None:
        """Estimated wait of a new job: what is as urgent or more, at the measured rate. None: unknown."""
        rate = self.settled_per_second
        if rate is None:
            return None
        ahead = sum(self.waiting(c) for c in CLASSES[: CLASSES.index(priority_class) + 1])
        return ahead / rate

    def retry_after_seconds(self, priority_class: PriorityClass, bound_seconds: float, most_jobs: int | None = None) -> float | None:
        """None: admit. Else a new job would wait longer than `bound_seconds`, or behind more than `most_jobs` of its class; this is
        when it is worth trying again.
        """
        wait = self.wait_seconds(priority_class)
        if wait is not None and wait > bound_seconds:
            return max(1.0, wait - bound_seconds)
        surplus = 0 if most_jobs is None else self.waiting(priority_class) - most_jobs
        if surplus < 0 or most_jobs is None:
            return None
        rate = self.settled_per_second
        return _UNKNOWN_SECONDS if not rate else max(1.0, (surplus + 1) / rate)
