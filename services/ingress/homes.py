"""HomeBouts: which home a new job gets. A bout of jobs goes to one home, then the next bout to another.

Jobs that arrive together then travel together: one partition's batch instead of a few records on each, at every hop (the idea of Kafka's
sticky partitioner, KIP-480). Homes are used evenly over any longer while, because a bout is short in time and in jobs.
"""

from __future__ import annotations

from random import Random

BOUT_SECONDS = 0.05
"""About two rounds of a busy planner."""
BOUT_JOBS = 64


class HomeBouts:
    """`next` gives the home of the next new job. Pure but for the injected order of homes."""

    def __init__(self, homes: int, random: Random) -> None:
        self._homes, self._random = homes, random
        self._order: list[int] = []
        self._home = 0
        self._left = 0
        self._until = 0.0

    def next(self, now: float) -> int:
        """The home of a job that arrives at `now` (monotonic seconds)."""
        if self._left == 0 or now >= self._until:
            if not self._order:
                # A new order each time round: several ingresses do not walk in step.
                self._order = self._random.sample(range(self._homes), self._homes)
            self._home, self._left, self._until = self._order.pop(), BOUT_JOBS, now + BOUT_SECONDS
        self._left -= 1
        return self._home
