"""Durations: how long calls of a kind take, and how often, therefore, a second attempt may be begun beside a slow one (`hedging`). Pure."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil, inf, log2

from shared.contracts.step import StepRequest

QUANTILE = 0.99
MOST_KEPT = 256
"""Pairs of capability and model of which durations are known."""
_BUCKETS_AN_OCTAVE, _LEAST_SECONDS, _BUCKETS = 4, 0.01, 76
"""From 10 ms to 5,000 s; a bucket is 19 % wide."""
_HALVED_AT = 2_000
"""Durations counted; then all count half, so that the newest count most."""
_MOST_SAVED = 5.0
"""Hedges that may follow one another after a quiet time."""


class Durations:
    """How long calls have taken, as a histogram. Bounded."""

    def __init__(self) -> None:
        self._counts = [0.0] * _BUCKETS
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One took so long."""
        self._counts[min(_BUCKETS - 1, max(0, ceil(log2(max(seconds, 1e-9) / _LEAST_SECONDS) * _BUCKETS_AN_OCTAVE)))] += 1
        self.total += 1
        if self.total >= _HALVED_AT:
            self._counts = [count / 2 for count in self._counts]
            self.total /= 2

    def quantile(self, share: float) -> float:
        """So large a share took no longer than this, in seconds, by at most a bucket too much."""
        left = share * self.total
        for number, count in enumerate(self._counts):
            left -= count
            if left <= 0:
                return float(_LEAST_SECONDS * 2.0 ** (number / _BUCKETS_AN_OCTAVE))
        return inf


class Hedging:
    """When, and how often, this home begins a second attempt. In memory only: a successor learns anew."""

    def __init__(self, share: float, samples: int, least_seconds: float) -> None:
        """`share` of the steps that might be hedged are at most; before `samples` durations nothing is known."""
        self._share, self._samples, self._least_seconds = share, samples, least_seconds
        self._known: OrderedDict[tuple[str, str], Durations] = OrderedDict()
        self._saved = 0.0

    def learn(self, request: StepRequest, seconds: float) -> None:
        """A call of this kind has taken so long."""
        key = (request.capability, request.model)
        known = self._known.pop(key, None) or Durations()
        known.add(seconds)
        self._known[key] = known
        if len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)

    def after_seconds(self, request: StepRequest) -> float:
        """One of this kind that takes longer than so many seconds is slow; inf while that is not known."""
        self._saved = min(_MOST_SAVED, self._saved + self._share)
        known = self._known.get((request.capability, request.model))
        if known is None or known.total < self._samples:
            return inf
        return max(self._least_seconds, known.quantile(QUANTILE))

    def take(self) -> bool:
        """One more, if there may be one."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
