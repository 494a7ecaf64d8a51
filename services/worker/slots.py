"""Free places of the node: slots for calls that run, prefetch positions for what arrives during one credit round trip."""

from __future__ import annotations

import math

from services.worker.round_trip import RoundTrip

_WINDOW_SECONDS = 1.0


class _CompletionRate:
    """Attempts ended per second, an exponentially decaying average over `_WINDOW_SECONDS`."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._at: float | None = None

    def add(self, now: float, count: int = 1) -> None:
        """`count` attempts ended at `now`, monotonic seconds."""
        self._rate = self.per_second(now) + count / _WINDOW_SECONDS
        self._at = now

    def per_second(self, now: float) -> float:
        """The average as of `now`."""
        if self._at is None:
            return 0.0
        return self._rate * math.exp(-max(0.0, now - self._at) / _WINDOW_SECONDS)


class Slots:
    """`total` concurrent calls and at most `prefetch_limit` places beyond them. `limit`: how many of the total are used at present."""

    def __init__(self, total: int, *, prefetch_limit: int, round_trip: RoundTrip) -> None:
        self.total = self.limit = total
        self.busy = 0
        self.ended = _CompletionRate()
        self._worked, self._at = 0.0, 0.0
        self._prefetch_limit = prefetch_limit
        self.round_trip = round_trip

    @property
    def free(self) -> int:
        """Calls that may start now."""
        return self.limit - self.busy

    def busy_seconds(self, now: float) -> float:
        """Of all slots together so far: how many were taken on average in a time, by the difference."""
        if now > self._at:
            self._worked += self.busy * (now - self._at)
            self._at = now
        return self._worked

    def take(self, now: float) -> None:
        """A call starts."""
        assert self.busy < self.total, "no free slot"
        self.busy_seconds(now)
        self.busy += 1

    def give_back(self, now: float, *, succeeded: bool = True) -> None:
        """A call ended. Failures do not count as speed: an endpoint that fails fast must not attract more."""
        assert self.busy > 0, "no slot is taken"
        self.busy_seconds(now)
        self.busy -= 1
        if succeeded:
            self.ended.add(now)

    def places(self, now: float, waiting: int) -> int:
        """Places to offer: slots plus what ends during a round trip (Little's law), minus what runs and waits. Never negative.

        Rounded down, so that slow steps are bound late: a node with 2 s steps has no prefetch position at all.
        """
        prefetch = min(self._prefetch_limit, int(self.ended.per_second(now) * self.round_trip.seconds))
        return max(0, self.limit + prefetch - self.busy - waiting)
