"""Journal: the recent events of recent jobs, kept as they came and folded only when somebody asks.

Bounded by jobs, bytes and events per job; the least recently touched job goes first. With a store behind it, what goes is in the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from services.ingress.shown import RawEvent
from services.ingress.status import JobStatus, fold

_OVERHEAD_BYTES = 200


class _Entry:
    __slots__ = ("base", "base_size", "events", "home", "size")

    def __init__(self, home: int) -> None:
        self.home = home
        self.base: JobStatus | None = None
        """What was folded of events no longer kept, or told otherwise."""
        self.base_size = 0
        self.events: list[RawEvent] = []
        self.size = _OVERHEAD_BYTES


class Journal:
    """Job → events. `add` is the hot path: it parses nothing."""

    def __init__(self, *, jobs: int, size: int, events_per_job: int) -> None:
        self._max_jobs = jobs
        self._max_size = size
        self._max_events = events_per_job
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
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
        self._trim()

    def told(self, status: JobStatus) -> None:
        """The planner answered for a job whose end is no longer in sight of this reader."""
        entry = self._entry(status.id, status.home)
        if entry.base is None or entry.base.result is None:
            self._rebase(entry, status)
        self._trim()

    def add(self, job: str, home: int, event: RawEvent) -> None:
        """Append an event; one at or below the last offset of the job is a repetition."""
        entry = self._entry(job, home)
        if entry.events and event.offset <= entry.events[-1].offset:
            return
        entry.home = home
        entry.events.append(event)
        weight = len(event.value) + _OVERHEAD_BYTES
        entry.size += weight
        self._size += weight
        if len(entry.events) > self._max_events:
            self._compact(job, entry)
        self._trim()

    def _entry(self, job: str, home: int) -> _Entry:
        entry = self._entries.get(job)
        if entry is None:
            entry = self._entries[job] = _Entry(home)
            self._size += entry.size
        else:
            self._entries.move_to_end(job)
        return entry

    def _compact(self, job: str, entry: _Entry) -> None:
        """Fold the older half, so that a job of many events stays small."""
        half = len(entry.events) // 2
        old, entry.events = entry.events[:half], entry.events[half:]
        self._rebase(entry, fold(job, entry.home, entry.base, old))
        freed = sum(len(event.value) + _OVERHEAD_BYTES for event in old)
        entry.size -= freed
        self._size -= freed

    def _rebase(self, entry: _Entry, base: JobStatus) -> None:
        entry.base, before = base, entry.base_size
        entry.base_size = len(base.stored())
        entry.size += entry.base_size - before
        self._size += entry.base_size - before

    def _trim(self) -> None:
        while self._entries and (len(self._entries) > self._max_jobs or self._size > self._max_size):
            _, entry = self._entries.popitem(last=False)
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
