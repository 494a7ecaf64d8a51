"""Trend: seconds as a straight line of something counted, learned from what happened, old observations fading. Pure.

Of a prompt: a fixed part and so much a token. Of a written token: its seconds alone, and so much more for each further call at once.
"""

from __future__ import annotations

LEVEL = 0.15
"""Of the newest observation in the averages: what changes is followed within some ten calls."""
SLOPE = 0.03
"""The same in how it depends on what is counted: that changes seldom, and needs observations far apart."""
PRIOR = 0.1
"""How much the first guess of the slope weighs, in observations."""


class Trend:
    """`proportional`: until enough is seen all of it is taken to grow with what is counted; else none of it."""

    __slots__ = ("_cov", "_proportional", "_var", "_x", "_y", "seen")

    def __init__(self, *, proportional: bool) -> None:
        self._proportional = proportional
        self._x = self._y = self._var = self._cov = 0.0
        self.seen = 0

    def observe(self, counted: float, seconds: float) -> None:
        """So much was counted, and took so long."""
        self.seen += 1
        level, slope = max(LEVEL, 1.0 / self.seen), max(SLOPE, 1.0 / self.seen)
        dx, dy = counted - self._x, seconds - self._y
        self._x += level * dx
        self._y += level * dy
        self._var += slope * (dx * (counted - self._x) - self._var)
        self._cov += slope * (dx * (seconds - self._y) - self._cov)

    @property
    def each(self) -> float:
        """Seconds for each one more; never negative, and never more than all of it."""
        most = self._y / self._x if self._x > 0 else 0.0
        weight = PRIOR * max(self._x * self._x, 1e-9) if self._proportional else PRIOR
        guess = (self._cov + weight * (most if self._proportional else 0.0)) / (self._var + weight)
        return min(max(0.0, guess), most) if self._x > 0 else 0.0

    @property
    def fixed(self) -> float:
        """Seconds of none."""
        return self._fixed(self.each)

    def _fixed(self, each: float) -> float:
        return max(0.0, self._y - each * self._x)

    def at(self, counted: float) -> float:
        """Seconds of so many."""
        each = self.each
        return self._fixed(each) + each * counted
