"""Token bucket arithmetic. Pure; the Redis script in `bucket_store.py` is the same three lines in Lua.

A bucket is one number: the moment at which it is full again if nothing more is taken (a bucket that was never used, or was full long
ago, has none). What is in it at `now` is `burst - (full_at - now) * per_second`. So nothing has to be refilled, and a stored bucket
may be forgotten as soon as it is full (generic cell rate algorithm, ITU-T I.371, with the bucket's words).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

EPSILON_SECONDS = 1e-6
"""What rounding may take; a caller who waits exactly as long as he was told must not be refused."""

DEBT_SECONDS = 86_400.0
"""A job that used a hundred times its estimate is paid for in full, unless that takes longer than a day: then the rest is forgiven."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Never more than `burst` at once, never more than burst + per_second * t in t seconds."""

    per_second: float
    burst: float

    @property
    def fill_seconds(self) -> float:
        """An empty bucket is full after this."""
        return self.burst / self.per_second

    @property
    def most_owed_seconds(self) -> float:
        """The deepest debt: a bucket that has used so much more than was taken is full again after this."""
        return self.fill_seconds + max(self.fill_seconds, DEBT_SECONDS)


class Level(NamedTuple):
    """A bucket after it was asked. `wait_seconds`: 0 when it gave; else exactly when it would."""

    full_seconds: float
    """Until it is full again."""
    wait_seconds: float

    def remaining(self, rate: Rate) -> int:
        """What could be taken now."""
        return max(0, math.floor(rate.burst - self.full_seconds * rate.per_second + EPSILON_SECONDS))


def ask(rate: Rate, full_at: float, amount: float, now: float) -> Level:
    """What comes of taking `amount` (at most the burst). When it gives, the new `full_at` is now + full_seconds."""
    assert 0 <= amount <= rate.burst, "more than the bucket holds is never given"
    before = max(0.0, full_at - now)
    after = before + amount / rate.per_second
    wait = after - rate.fill_seconds
    return Level(after, 0.0) if wait <= EPSILON_SECONDS else Level(before, wait)


def settled(rate: Rate, full_at: float, difference: float, now: float) -> float:
    """The new `full_at` when `difference` more (or, negative, less) was used than was taken. Debt is bounded."""
    owed = max(0.0, full_at - now) + difference / rate.per_second
    return now + min(max(0.0, owed), rate.most_owed_seconds)
