"""RoundTrip: how long it takes from offering a place to reading the step that uses it, measured while steps wait. No I/O, no clock.

A record of credits raises what routers may have sent at all from `before` to `read + offers`; so the step after `before` can only have
been sent by a router that had read that record. Its arrival is the measure, whatever else is under way.
"""

from __future__ import annotations

from collections import deque

MOST_SECONDS = 0.5
"""What takes longer was more likely a step that came late than one that waited; it is not counted."""
SLACK = 1.5
"""Steps come in bursts and wait: with just as many places as fit a round trip a node whose slots ran dry would not fill them again."""
_SMOOTHING = 1 / 8
_UNDER_WAY = 64
"""Records that are still to be answered; beyond that the oldest are not measured."""


class RoundTrip:
    """`seconds`: the smoothed measure with slack, at least `least`, at most SLACK * MOST_SECONDS."""

    def __init__(self, least: float) -> None:
        self.seconds = self._least = least
        self._smoothed = least / SLACK
        self._read = 0
        self._allowed = 0
        """The most that any record has allowed: a record that allows less takes back nothing that is under way."""
        self._under_way: deque[tuple[int, float]] = deque(maxlen=_UNDER_WAY)
        """(steps that were allowed before, when more were)"""

    def offered(self, read: int, offers: int, now: float, *, waiting: int) -> None:
        """A record goes out: so many steps were read so far, so many more may come. `waiting`: steps that routers hold, as they say."""
        if read < self._read:
            # Another mailbox, which counts anew.
            self._allowed = 0
            self._under_way.clear()
        self._read = read
        if read + offers > self._allowed:
            if waiting > offers:
                self._under_way.append((max(read, self._allowed), now))
            self._allowed = read + offers

    def arrived(self, read: int, now: float) -> None:
        """So many steps were read so far."""
        while self._under_way and read > self._under_way[0][0]:
            _, since = self._under_way.popleft()
            if now - since <= MOST_SECONDS:
                self._smoothed += (now - since - self._smoothed) * _SMOOTHING
                self.seconds = max(self._least, SLACK * self._smoothed)
