"""Tenants: deficit round robin on estimated tokens (Shreedhar and Varghese, SIGCOMM 1995). Pure. For the planner's intake and the router.

While two tenants both wait, what they got differs by at most two quanta and two of the largest pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, Protocol, TypeVar

TIMES_LEFT = 16
"""A tenant may hold so many times as many places as are left: of jobs that live, of those who wait."""


class Piece(Protocol):
    """What waits. `cost` in tokens (positive), `arrived_at` in monotonic seconds."""

    @property
    def tenant(self) -> str: ...
    @property
    def lane(self) -> Hashable: ...
    @property
    def cost(self) -> int: ...
    @property
    def arrived_at(self) -> float: ...


T = TypeVar("T", bound=Piece)
OpenLane = Callable[[Any], bool]
"""Whether a step of that lane could be given to a node now. May only turn from True to False while items are taken."""


class _Tenant(Generic[T]):
    __slots__ = ("deficit", "lanes", "name", "on_turn")

    def __init__(self, name: str) -> None:
        self.name = name
        self.deficit = 0
        self.on_turn = False
        self.lanes: dict[Hashable, deque[T]] = {}

    def head(self, open_lane: OpenLane) -> T | None:
        """The oldest item whose lane is open."""
        if len(self.lanes) == 1:
            ((lane, items),) = self.lanes.items()
            return items[0] if open_lane(lane) else None
        oldest: T | None = None
        for lane, items in self.lanes.items():
            if (oldest is None or items[0].arrived_at < oldest.arrived_at) and open_lane(lane):
                oldest = items[0]
        return oldest

    def remove_head(self, item: T) -> None:
        lane = self.lanes[item.lane]
        lane.popleft()
        if not lane:
            del self.lanes[item.lane]


class TenantRing(Generic[T]):
    """Over time each tenant gets the same number of tokens while it has something to serve."""

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._ring: deque[_Tenant[T]] = deque()
        self._tenants: dict[str, _Tenant[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        for tenant in self._ring:
            for items in tenant.lanes.values():
                yield from items

    def oldest(self) -> float:
        """Arrival of the item that has waited longest; there must be one."""
        return min(items[0].arrived_at for tenant in self._ring for items in tenant.lanes.values())

    def add(self, item: T, *, front: bool = False) -> None:
        """`front`: before the others of its tenant and lane: it was taken and could not be served, or its class was raised."""
        tenant = self._tenants.get(item.tenant)
        if tenant is None:
            tenant = self._tenants[item.tenant] = _Tenant(item.tenant)
            self._ring.append(tenant)
        lane = tenant.lanes.setdefault(item.lane, deque())
        if front:
            lane.appendleft(item)
        else:
            lane.append(item)
        self._count += 1

    def take(self, open_lane: OpenLane) -> T | None:
        """Remove and return the next item; None when no lane is open."""
        while self._ring:
            rounds: int | None = None
            for _ in range(len(self._ring)):
                tenant = self._ring[0]
                item = tenant.head(open_lane)
                if item is not None:
                    self._begin_turn(tenant)
                    if item.cost <= tenant.deficit:
                        self._serve(tenant, item)
                        return item
                    needed = -(-(item.cost - tenant.deficit) // self._quantum)
                    rounds = needed if rounds is None else min(rounds, needed)
                    tenant.on_turn = False
                # A turn that finds every lane closed is not over: it goes on with what is left of it.
                self._ring.rotate(-1)
            if rounds is None:
                return None
            self._skip(rounds - 1, open_lane)
        return None

    def not_served(self, item: T) -> None:
        """It was taken in vain: its tenant has its tokens again."""
        tenant = self._tenants.get(item.tenant)
        if tenant is not None:
            tenant.deficit += item.cost

    @property
    def lanes(self) -> Iterator[Hashable]:
        """Of each tenant."""
        for tenant in self._ring:
            yield from tenant.lanes

    def any_open(self, open_lane: OpenLane) -> bool:
        """Whether `take` would find an item."""
        return any(tenant.head(open_lane) is not None for tenant in self._ring)

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return everything that is unwanted."""
        removed: list[T] = []
        for tenant in list(self._ring):
            for name, items in list(tenant.lanes.items()):
                gone = [item for item in items if unwanted(item)]
                if gone:
                    removed += gone
                    tenant.lanes[name] = deque(item for item in items if not unwanted(item))
                    if not tenant.lanes[name]:
                        del tenant.lanes[name]
            self._leave_if_idle(tenant)
        self._count -= len(removed)
        return removed

    def _begin_turn(self, tenant: _Tenant[T]) -> None:
        if not tenant.on_turn:
            tenant.on_turn = True
            tenant.deficit += self._quantum

    def _serve(self, tenant: _Tenant[T], item: T) -> None:
        tenant.deficit -= item.cost
        tenant.remove_head(item)
        self._count -= 1
        self._leave_if_idle(tenant)

    def _leave_if_idle(self, tenant: _Tenant[T]) -> None:
        """An idle tenant saves nothing up."""
        if not tenant.lanes:
            del self._tenants[tenant.name]
            self._ring.remove(tenant)

    def _skip(self, rounds: int, open_lane: OpenLane) -> None:
        """What `rounds` turns without a service would add, at once."""
        if rounds > 0:
            for tenant in self._ring:
                if tenant.head(open_lane) is not None:
                    tenant.deficit += rounds * self._quantum
