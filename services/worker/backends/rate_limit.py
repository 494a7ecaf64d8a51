"""A token bucket: how long a call has to wait so that an endpoint's rate limit is kept. Pure."""

from __future__ import annotations


class TokenBucket:
    """`per_second` calls on average, at most `burst` at once. Each `take` books a call and returns its wait, in order."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._rate = per_second
        self._burst = burst
        self._free_at: float | None = None

    def take(self, now: float) -> float:
        """Seconds to wait from `now` (monotonic) before making this call; 0 while the burst lasts."""
        earliest = now - self._burst / self._rate
        booked = max(self._free_at if self._free_at is not None else earliest, earliest) + 1.0 / self._rate
        self._free_at = booked
        return max(0.0, booked - now)
