"""Room: how many live jobs of each class, and of each tenant in it, a home may take. Pure. A large job counts as several.

The bound is on all of them together, so batch jobs that wait for a node would fill it and keep an interactive job out until one of
them ends. Therefore each class keeps an eighth of the bound for itself, and shares the rest.

In the same way one tenant's jobs would keep another tenant's out. Therefore a tenant may hold at most sixteen times as many live jobs of a
class as there is room left for (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998): alone it may
have sixteen seventeenths of the room, n tenants with much to do come to hold the same, and a new one finds room at once, or takes what
comes free before those that hold much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from shared.contracts.base import CLASSES, PriorityClass

RESERVED = 8
"""One part in so many is each class's own."""
TIMES_LEFT = 16
"""A tenant may hold so many times what is left."""

Held = Mapping[tuple[PriorityClass, str], int]
"""Live jobs of a tenant in a class."""


class Room:
    """What is left of `bound` beside the `live` jobs of each class. Counts down as jobs are taken; `held` is counted by who enters them."""

    def __init__(
        self,
        bound: int,
        live: Mapping[PriorityClass, int],
        held: Held = MappingProxyType({}),
        *,
        closed: str | None = None,
        shut: Collection[PriorityClass] = (),
    ) -> None:
        """`closed`: a tenant, or what counts as one, of which none is taken at present. `shut`: classes of which none is."""
        self._closed, self._shut = closed, shut
        self._reserve = bound // RESERVED
        self._own = {c: self._reserve - live[c] for c in CLASSES}
        self._shared = bound - sum(max(live[c], self._reserve) for c in CLASSES)
        self._held = held

    def has(self, priority_class: PriorityClass) -> bool:
        """Whether one more job of this class may be taken."""
        return priority_class not in self._shut and self._left(priority_class) > 0

    def admits(self, priority_class: PriorityClass) -> Callable[[str], bool] | None:
        """Whether one more of a tenant's jobs may be taken now; None when any tenant's may."""
        most = TIMES_LEFT * self._left(priority_class)
        closed = self._closed
        if self._reserve - self._own[priority_class] < most:
            return None if closed is None else lambda tenant: tenant != closed
        return lambda tenant: tenant != closed and self._held.get((priority_class, tenant), 0) < most

    def take(self, priority_class: PriorityClass, places: int = 1) -> None:
        """One was taken, which counts as so many: the last one may be larger than what is left."""
        own = self._own[priority_class]
        self._own[priority_class] = own - places
        self._shared -= max(0, places - max(0, own))

    def _left(self, priority_class: PriorityClass) -> int:
        return max(self._own[priority_class], 0) + max(self._shared, 0)
