"""Urgency: a step whose deadline comes near is served as one of a higher class. Pure; recorded nowhere, computed anew each time.

Rule: while what is left until the deadline is less than FACTOR times what the class is expected to take, the step counts as one class
higher; never higher than interactive. What a class takes is measured by whoever asks: the planner from acceptance to the end of its
jobs, when it sends a step; a router from reading to the predicted end of its steps, again and again while they wait.

What it cannot do: raise a job that still lies unread in Kafka, or a step in a partition behind a router's window. Nor does it make the
deadline: a raised step waits its tenant's turn in the higher class. Whoever gives a short deadline gains nothing that naming the class
would not give. When a whole class is late (twice as late as its deadlines allow) all of it is raised, and then only tenants' turns and the
class's share order it: add nodes, or give longer deadlines.
"""

from __future__ import annotations

from collections.abc import Callable

from shared.contracts.base import CLASSES, PriorityClass

FACTOR = 2.0
_SHARE = 0.1
"""Of the newest in the average."""


class ExpectedSeconds:
    """What each class has taken lately: exponentially weighted averages, seconds."""

    def __init__(self) -> None:
        self._seconds: dict[PriorityClass, float] = {}

    def learn(self, priority_class: PriorityClass, seconds: float) -> None:
        """One of this class took so long."""
        known = self._seconds.get(priority_class, seconds)
        self._seconds[priority_class] = known + _SHARE * (seconds - known)

    def of(self, priority_class: PriorityClass) -> float:
        """0 while nothing is known: then nothing is raised."""
        return self._seconds.get(priority_class, 0.0)


def raised(priority_class: PriorityClass, left_seconds: float, expected: Callable[[PriorityClass], float]) -> PriorityClass:
    """The class to serve it in, with `left_seconds` until its deadline."""
    rank = CLASSES.index(priority_class)
    while rank > 0 and left_seconds < FACTOR * expected(CLASSES[rank]):
        rank -= 1
    return CLASSES[rank]
