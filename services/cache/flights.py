"""Flights: of equal steps one, the leader, asks a model, and the others wait for its answer. Pure, in memory only, bounded.

Of one tenant each: nobody waits for another tenant's step, whose turn may come late. A step of a higher class does not wait for one of a
lower: it leads from then on, and whichever answer comes first serves all. A leader is believed for a time; who asks after that leads. So
whatever is lost (an instance, a leader, a message), a follower comes back by its planner's own timer and finds a leader or becomes it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from shared.contracts.base import CLASSES
from shared.contracts.cache import CacheLookup

_RANK = {priority_class: rank for rank, priority_class in enumerate(CLASSES)}
"""0 is the highest."""
_SHORTEST_SECONDS = 0.001
_Step = tuple[str, str]


@dataclass(slots=True)
class _Flight:
    leader: CacheLookup
    until: float
    followers: dict[_Step, CacheLookup] = field(default_factory=dict)


class Flights:
    """Of one partition. `now`: monotonic seconds. `most`: steps that are waited for, and steps that wait."""

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._of: OrderedDict[tuple[str, str], _Flight] = OrderedDict()
        """(key, tenant) → who is asked; the oldest first."""
        self._tenants: dict[str, set[str]] = {}
        """By key."""
        self.waiting = 0
        """Followers."""

    def __len__(self) -> int:
        return len(self._of)

    def missed(self, lookup: CacheLookup, now: float) -> float | None:
        """There is no entry: how long this step may wait for another one, None where it is to be sent."""
        flight = self._of.get((lookup.key, lookup.tenant))
        if flight is None or flight.until <= now or _higher(lookup, flight.leader):
            self._lead(lookup, now)
            return None
        me = _step(lookup)
        if me == _step(flight.leader) or (me not in flight.followers and self.waiting >= self._most):
            return None
        self.waiting += me not in flight.followers
        flight.followers[me] = lookup
        return max(_SHORTEST_SECONDS, flight.until - now)

    def landed(self, key: str) -> list[CacheLookup]:
        """There is an answer: who waits for it."""
        over = [self._pop(key, tenant) for tenant in sorted(self._tenants.get(key, ()))]
        return [follower for flight in over for follower in flight.followers.values()]

    def abandoned(self, key: str, tenant: str, step: _Step, now: float) -> CacheLookup | None:
        """This step, (job, step), ends without an answer: who leads now, the highest class first; None where nobody is to."""
        flight = self._of.get((key, tenant))
        if flight is None:
            return None
        if _step(flight.leader) != step:
            self.waiting -= flight.followers.pop(step, None) is not None
            return None
        if not flight.followers:
            self._pop(key, tenant)
            return None
        first = min(flight.followers.values(), key=lambda one: _RANK[one.priority_class])
        self._lead(first, now)
        return first

    def _lead(self, lookup: CacheLookup, now: float) -> None:
        """From now on; who waits goes on waiting."""
        key, tenant, followers = lookup.key, lookup.tenant, {}
        if (key, tenant) in self._of:
            followers = self._pop(key, tenant).followers
            followers.pop(_step(lookup), None)
        while len(self._of) >= self._most:
            self._pop(*next(iter(self._of)))  # who waits for that comes back
        self._of[key, tenant] = _Flight(lookup, now + self._seconds, followers)
        self._tenants.setdefault(key, set()).add(tenant)
        self.waiting += len(followers)

    def _pop(self, key: str, tenant: str) -> _Flight:
        flight = self._of.pop((key, tenant))
        self._tenants[key].discard(tenant)
        if not self._tenants[key]:
            del self._tenants[key]
        self.waiting -= len(flight.followers)
        return flight


def _step(lookup: CacheLookup) -> _Step:
    return lookup.job, lookup.step


def _higher(lookup: CacheLookup, leader: CacheLookup) -> bool:
    return _RANK[lookup.priority_class] < _RANK[leader.priority_class]
