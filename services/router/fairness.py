"""Fairness: which waiting step is served next. Pure.

Classes: interactive first up to a share of the tokens, the rest by weight and age (`shared.scheduling.class_shares`).
Tenants of a class: deficit round robin on estimated tokens (`shared.scheduling.fair_queue`).
Steps of one tenant: one lane per demand, so that a lane whose nodes are all busy does not hold the others; the oldest head first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from shared.contracts.base import CLASSES, PriorityClass
from shared.scheduling.class_shares import ClassShares
from shared.scheduling.fair_queue import OpenLane, Piece, TenantRing


class _Item(Piece, Protocol):
    """What waits."""

    @property
    def priority_class(self) -> PriorityClass: ...


T = TypeVar("T", bound=_Item)
BURST_TOKENS = 65_536.0
"""What interactive steps may take before their share binds."""


class WaitingSteps(Generic[T]):
    """Everything that waits in this router."""

    def __init__(self, *, interactive_share: float, quantum: int) -> None:
        self._shares = ClassShares(interactive_share, BURST_TOKENS)
        self._rings: dict[PriorityClass, TenantRing[T]] = {c: TenantRing(quantum) for c in CLASSES}

    def __len__(self) -> int:
        return sum(map(len, self._rings.values()))

    def __iter__(self) -> Iterator[T]:
        for ring in self._rings.values():
            yield from ring

    def add(self, item: T, *, front: bool = False) -> None:
        self._rings[item.priority_class].add(item, front=front)

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return everything that is unwanted."""
        return [item for ring in self._rings.values() for item in ring.remove(unwanted)]

    def not_served(self, item: T) -> None:
        """It was taken and waits on: its class and its tenant have had nothing. Whoever took it adds it again, in front."""
        self._shares.not_served(item.priority_class, item.cost)
        self._rings[item.priority_class].not_served(item)

    @property
    def lanes(self) -> Iterator[Hashable]:
        """Of everything that waits, each once or more."""
        for ring in self._rings.values():
            yield from ring.lanes

    def drain(self, open_lane: OpenLane, now: float) -> Iterator[T]:
        """Remove and yield items in the order in which they should be served, until no lane is open. Nothing may be added meanwhile."""
        ages = self.ages(now)
        while len(ages) > 1:
            for priority_class in self._shares.order(ages):
                item = self._rings[priority_class].take(open_lane)
                if item is None:
                    del ages[priority_class]
                    continue
                self._shares.served(priority_class, item.cost, ages)
                yield item
                break
        for priority_class in ages:
            ring = self._rings[priority_class]
            while (item := ring.take(open_lane)) is not None:
                self._shares.served_alone(priority_class, item.cost)
                yield item

    def ages(self, now: float) -> dict[PriorityClass, float]:
        """Seconds that the oldest of each class has waited, of those that wait; 0 where only one class does."""
        present = [c for c, ring in self._rings.items() if ring]
        if len(present) < 2:
            return dict.fromkeys(present, 0.0)
        return {c: now - self._rings[c].oldest() for c in present}
