"""Timeline: virtual time as a heap of what is to happen. Equal instants in the order in which they were asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timeline:
    """`now`: seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do this so many seconds from now."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + max(0.0, seconds), self._count, act))

    def run(self, until: Callable[[], bool], most_seconds: float) -> None:
        """Until that is so, nothing is left to happen, or so much time has passed."""
        while self._heap and not until():
            at, _, act = heapq.heappop(self._heap)
            if at > most_seconds:
                return
            self.now = at
            act()
