"""Room: how many live jobs of each class a home may take. Pure.

The bound is on all of them together, so batch jobs that wait for a node would fill it and keep an interactive job out until one of
them ends. Therefore each class keeps an eighth of the bound for itself, and shares the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.contracts.base import CLASSES, PriorityClass

RESERVED = 8
"""One part in so many is each class's own."""


class Room:
    """What is left of `bound` beside the `live` jobs of each class. Counts down as jobs are taken."""

    def __init__(self, bound: int, live: Mapping[PriorityClass, int]) -> None:
        self._reserve = bound // RESERVED
        self._own = {c: self._reserve - live[c] for c in CLASSES}
        self._shared = bound - sum(max(live[c], self._reserve) for c in CLASSES)

    def has(self, priority_class: PriorityClass) -> bool:
        """Whether one more job of this class may be taken."""
        return self._own[priority_class] > 0 or self._shared > 0

    def take(self, priority_class: PriorityClass) -> None:
        """One was taken."""
        self._own[priority_class] -= 1
        if self._own[priority_class] < 0:
            self._shared -= 1
