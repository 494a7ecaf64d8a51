"""Register: everybody who waits in this instance, in one place: counted, bounded, with a deadline, and told when the instance leaves.

| who waits | places | until | when the instance leaves |
|---|---|---|---|
| `ANSWER`: a caller for his answer | `in_flight`, with the next | the job's deadline | has it within the grace period, else 503 |
| `END`: `?wait=` for a job's end | `in_flight` | his seconds | 202 at once: the job goes on |
| `EVENTS`: the reader of an event stream | `follows` | `stream_seconds` | the stream ends; its last id goes on elsewhere |

One tenant does not take all places: it may hold sixteen times as many as are left (dynamic thresholds: Choudhury and Hahne, IEEE/ACM
Transactions on Networking 6, 1998). Alone it may have sixteen seventeenths; another one then still finds places.

A guest whose time is up is told; one that does not go then, since its client reads nothing, is cut off.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Protocol

from services.ingress.settings import IngressSettings
from shared.errors import Overloaded
from shared.scheduling.fair_queue import TIMES_LEFT


class WaitKind(StrEnum):
    """What somebody waits for."""

    ANSWER = "answer"
    END = "end"
    EVENTS = "events"


class Guest(Protocol):
    """Somebody who waits. `tenant`: on whose account; `until`: monotonic seconds."""

    kind: WaitKind
    tenant: str
    until: float
    blocked_since: float | None
    """Since when its client has not taken what was sent; None: it reads."""

    def expire(self) -> None:
        """Its time is up."""
        ...

    def dismiss(self) -> None:
        """The instance is leaving."""
        ...

    def cut_off(self) -> None:
        """End the request itself."""
        ...


def may_take(held: int, left: int, number: int = 1) -> bool:
    """Whether a tenant that holds so many places may take more, where so many are left."""
    return number <= left and held + number <= max(1, TIMES_LEFT * left)


class Places:
    """A bounded number of them, shared by tenants. Pure."""

    __slots__ = ("_bound", "_held", "taken")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._held: dict[str, int] = {}
        self.taken = 0

    def has(self, tenant: str, number: int = 1) -> bool:
        """Whether the tenant may take so many."""
        return may_take(self._held.get(tenant, 0), self._bound - self.taken, number)

    def take(self, tenant: str, number: int = 1) -> None:
        """They are held from now on."""
        self._held[tenant] = self._held.get(tenant, 0) + number
        self.taken += number

    def give_back(self, tenant: str, number: int = 1) -> None:
        """They are free again."""
        self.taken -= number
        left = self._held.pop(tenant, 0) - number
        if left > 0:
            self._held[tenant] = left


class Register:
    """One per instance."""

    def __init__(self, settings: IngressSettings, somebody: asyncio.Event | None = None) -> None:
        """`somebody`: set while anybody waits here."""
        calls = Places(settings.in_flight)
        self._places = {WaitKind.ANSWER: calls, WaitKind.END: calls, WaitKind.EVENTS: Places(settings.follows)}
        self._stuck_seconds, self._retry_after_seconds = settings.stuck_seconds, settings.retry_after_seconds
        self._guests: dict[Guest, None] = {}
        self._somebody = somebody or asyncio.Event()
        self._counts: Counter[WaitKind] = Counter()

    def __len__(self) -> int:
        return len(self._guests)

    def count(self, *kinds: WaitKind) -> int:
        """How many wait for this."""
        return sum(self._counts[kind] for kind in kinds)

    def check(self, kind: WaitKind, tenant: str = "") -> None:
        """Raises Overloaded where nobody else (of this tenant) may wait for this now."""
        if not self._places[kind].has(tenant):
            raise Overloaded(f"too many wait here already ({kind.value})", retry_after_seconds=self._retry_after_seconds)

    def enter(self, guest: Guest) -> None:
        """He waits. Raises Overloaded."""
        self.check(guest.kind, guest.tenant)
        self._places[guest.kind].take(guest.tenant)
        self._guests[guest] = None
        self._somebody.set()
        self._counts[guest.kind] += 1

    def leave(self, guest: Guest) -> None:
        """He waits no longer."""
        if guest in self._guests:
            del self._guests[guest]
            self._counts[guest.kind] -= 1
            self._places[guest.kind].give_back(guest.tenant)
            if not self._guests:
                self._somebody.clear()

    def sweep(self, now: float) -> None:
        """Tell those whose time is up; cut off those who do not go, and those whose clients read nothing."""
        for guest in list(self._guests):
            since = guest.blocked_since
            if now - guest.until >= self._stuck_seconds or (since is not None and now - since >= self._stuck_seconds):
                guest.cut_off()
            elif guest.until <= now:
                guest.expire()

    def dismiss(self, *kinds: WaitKind) -> None:
        """Tell those who wait for this that the instance is leaving."""
        for guest in list(self._guests):
            if guest.kind in kinds:
                guest.dismiss()

    def cut_off(self) -> None:
        """End the requests of all who are still here."""
        for guest in list(self._guests):
            guest.cut_off()


class Following:
    """A guest who reads of one job as news of it come. `over`: he must go, his time is up or the instance is leaving."""

    __slots__ = ("_task", "blocked_since", "kind", "news", "over", "tenant", "until")

    def __init__(self, kind: WaitKind, tenant: str, until: float) -> None:
        self.kind, self.tenant, self.until = kind, tenant, until
        self.news = asyncio.Event()
        self.over = False
        self.blocked_since: float | None = None
        self._task = asyncio.current_task()

    def expire(self) -> None:
        """As `Guest`."""
        self.over = True
        self.news.set()

    dismiss = expire

    def cut_off(self) -> None:
        """As `Guest`."""
        if self._task is not None:
            self._task.cancel()
