"""Journal: the recent events of recent jobs, kept as they came and folded only when somebody asks.

Bounded by jobs, bytes and events per job. Where it is full, the tenant that holds most gives way first, by its least recently touched
job: the flood of one pushes out its own. With a store behind it, what goes is in the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from services.ingress.status.shown import RawEvent, tenant_in
from services.ingress.status.status import JobStatus, fold
from shared.contracts import ids

_OVERHEAD_BYTES = 200
_SLACK = 64
"""A full journal gives up one part in so many at once: to look for who holds most costs something for each tenant."""
_TELLING = frozenset({"job_delayed", "job_accepted", "job_settled"})
"""Kinds whose first tenant is the job's: it stands before all that callers write freely."""


class _Entry:
    __slots__ = ("base", "base_size", "events", "home", "size", "tenant")

    def __init__(self, home: int, tenant: str) -> None:
        self.home, self.tenant = home, tenant
        self.base: JobStatus | None = None
        """What was folded of events no longer kept, or told otherwise."""
        self.base_size = 0
        self.events: list[RawEvent] = []
        self.size = _OVERHEAD_BYTES


class _Held:
    """What one tenant holds."""

    __slots__ = ("jobs", "size")

    def __init__(self) -> None:
        self.jobs: OrderedDict[str, None] = OrderedDict()
        """The least recently touched first."""
        self.size = 0


class Journal:
    """Job → events. `add` is the hot path: it parses nothing."""

    def __init__(self, *, jobs: int, size: int, events_per_job: int) -> None:
        self._max_jobs = jobs
        self._max_size = size
        self._max_events = events_per_job
        self._entries: dict[str, _Entry] = {}
        self._held: dict[str, _Held] = {}
        """By tenant; under the empty name what nobody has told the tenant of."""
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job: str) -> bool:
        return job in self._entries

    def submitted(self, status: JobStatus) -> None:
        """A job was sent from here; until its events come this is all that is known."""
        entry = self._entry(status.id, status.home)
        if entry.base is None:
            entry.base = status
        self._give(status.id, entry, status.tenant)
        self._trim()

    def told(self, status: JobStatus) -> None:
        """The planner answered for a job whose end is no longer in sight of this reader."""
        entry = self._entry(status.id, status.home)
        if entry.base is None or entry.base.result is None:
            self._rebase(entry, status)
        self._give(status.id, entry, status.tenant)
        self._trim()

    def add(self, job: str, home: int, event: RawEvent) -> None:
        """Append an event; one at or below the last offset of the job is a repetition."""
        entry = self._entry(job, home)
        if entry.events and event.offset <= entry.events[-1].offset:
            return
        entry.home = home
        entry.events.append(event)
        self._weigh(entry, len(event.value) + _OVERHEAD_BYTES)
        if not entry.tenant and event.kind in _TELLING:
            self._give(job, entry, tenant_in(event.value))
        if len(entry.events) > self._max_events:
            self._compact(job, entry)
        self._trim()

    def _entry(self, job: str, home: int) -> _Entry:
        entry = self._entries.get(job)
        if entry is None:
            entry = self._entries[job] = _Entry(home, ids.owner(job) or "")
            held = self._held.setdefault(entry.tenant, _Held())
            held.jobs[job] = None
            held.size += entry.size
            self._size += entry.size
        else:
            self._held[entry.tenant].jobs.move_to_end(job)
        return entry

    def _weigh(self, entry: _Entry, more: int) -> None:
        entry.size += more
        self._held[entry.tenant].size += more
        self._size += more

    def _give(self, job: str, entry: _Entry, tenant: str | None) -> None:
        """It is known whose the job is."""
        if tenant and not entry.tenant:
            self._take(job, entry)
            entry.tenant = tenant
            held = self._held.setdefault(tenant, _Held())
            held.jobs[job] = None
            held.size += entry.size

    def _take(self, job: str, entry: _Entry) -> None:
        held = self._held[entry.tenant]
        del held.jobs[job]
        held.size -= entry.size
        if not held.jobs:
            del self._held[entry.tenant]

    def _compact(self, job: str, entry: _Entry) -> None:
        """Fold the older half, so that a job of many events stays small."""
        half = len(entry.events) // 2
        old, entry.events = entry.events[:half], entry.events[half:]
        self._rebase(entry, fold(job, entry.home, entry.base, old))
        self._weigh(entry, -sum(len(event.value) + _OVERHEAD_BYTES for event in old))

    def _rebase(self, entry: _Entry, base: JobStatus) -> None:
        entry.base, before = base, entry.base_size
        entry.base_size = len(base.stored())
        self._weigh(entry, entry.base_size - before)

    def _trim(self) -> None:
        if len(self._entries) <= self._max_jobs and self._size <= self._max_size:
            return
        jobs, size = self._max_jobs - self._max_jobs // _SLACK, self._max_size - self._max_size // _SLACK
        largest = [(-self._share(held), tenant) for tenant, held in self._held.items()]
        heapify(largest)
        while largest and (len(self._entries) > jobs or self._size > size):
            _, tenant = heappop(largest)
            held, second = self._held[tenant], -largest[0][0] if largest else 0.0
            while held.jobs and self._share(held) >= second and (len(self._entries) > jobs or self._size > size):
                self._drop(next(iter(held.jobs)))
            if held.jobs:
                heappush(largest, (-self._share(held), tenant))

    def _share(self, held: _Held) -> float:
        """Of the journal, in jobs and in bytes."""
        return max(len(held.jobs) / self._max_jobs, held.size / self._max_size)

    def forget(self, tenant: str) -> None:
        """All that is known here of a tenant's jobs; what still comes of them begins anew."""
        for job in list(self._held[tenant].jobs) if tenant in self._held else ():
            self._drop(job)

    def _drop(self, job: str) -> None:
        entry = self._entries.pop(job)
        self._take(job, entry)
        self._size -= entry.size

    def status(self, job: str, stored: JobStatus | None = None) -> JobStatus | None:
        """The job as known here, on top of what a store had. None: unknown here."""
        entry = self._entries.get(job)
        if entry is None:
            return stored
        base = entry.base
        if stored is not None and (base is None or stored.offset > base.offset):
            base = stored
        return fold(job, entry.home, base, entry.events)

    def is_whole(self, job: str) -> bool:
        """Whether the journal knows the job from its acceptance or delay, so that no store need be asked."""
        entry = self._entries.get(job)
        if entry is None:
            return False
        if entry.events and entry.events[0].kind in ("job_delayed", "job_accepted"):
            return True
        return entry.base is not None and (entry.base.accepted_at is not None or not entry.events)

    def home(self, job: str) -> int | None:
        """The job's home partition, when known here."""
        entry = self._entries.get(job)
        return None if entry is None else entry.home

    def after(self, job: str, offset: int) -> Sequence[RawEvent]:
        """The kept events behind `offset`."""
        entry = self._entries.get(job)
        if entry is None:
            return ()
        return [event for event in entry.events if event.offset > offset]
