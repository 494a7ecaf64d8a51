"""EventsReader: all partitions of `job-events` into the journal, the backlog's counts and, throttled, the status store.

The hot path parses nothing: the type comes from a header, the job from the key, the epoch from the first bytes; bodies wait in the
journal until somebody asks or the store is written.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import from_json

from services.ingress.admission.backlog import Backlog
from services.ingress.admission.tenant_days import TenantDays
from services.ingress.settings import IngressSettings
from services.ingress.status.journal import Journal
from services.ingress.status.shown import LEDGER, SHOWN, RawEvent
from services.ingress.status.status import JobStatus
from services.ingress.status.store import Position, StatusStore, StoreUnavailable
from services.ingress.status.watchlist import Followers, Watchlist
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.epochs import EpochFilter, epoch_of
from shared.kafka.port import Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.tail import Tail
from shared.service import Environment
from shared.telemetry import metrics

_CLASS = re.compile(rb'"priority_class":"(interactive|standard|batch)"')
_SOURCE = re.compile(rb'"source":"[^"\\]+/(\d{1,9})/(\d{1,18})"')
_KINDS = {kind.encode(): kind for kind in ("planner_started", *SHOWN, *LEDGER)}
_CLASSES = {priority_class.value.encode(): priority_class for priority_class in PriorityClass}
_STORE_BATCH = 500
_MAX_DIRTY = 20_000
"""Changed jobs a partition that wait for the store; beyond that the oldest are not written (their status is in the journal for a while)."""


class EventsReader:
    """One tail over all home partitions, and all that is known from it; `flush` is called by its own loop."""

    def __init__(self, environment: Environment, settings: IngressSettings, store: StatusStore | None) -> None:
        self._clock, self.store = environment.clock, store
        self.journal = Journal(jobs=settings.journal_jobs, size=settings.journal_bytes, events_per_job=settings.journal_events_per_job)
        self.backlog, self.followers, self.watchlist, self.tenants = Backlog(), Followers(), Watchlist(settings.watched_jobs), TenantDays()
        self._lookback, self._flush_seconds = settings.events_lookback, settings.flush_seconds
        topics, partitions = environment.topics, environment.topics.settings.home_partitions
        self._partitions = [TopicPartition(topics.job_events, number) for number in range(partitions)]
        self._epochs = {partition: EpochFilter() for partition in self._partitions}
        self._dirty: dict[int, dict[str, None]] = {number: {} for number in range(partitions)}
        self._saved: dict[int, int] = {}
        self._remembered: Mapping[int, Position] = {}
        self._queued: deque[JobStatus] = deque(maxlen=_MAX_DIRTY)
        self.tail = Tail(
            environment.log,
            environment.clock,
            self._partitions,
            client_id=f"tutti-ingress-events-{environment.instance}",
            begin=self._begin,
            handle=self._on_records,
            pause_seconds=settings.events_pause_seconds,
        )

    async def run(self) -> None:
        """Follow the events until cancelled."""
        if self.store is not None:
            try:
                self._remembered = await self.store.positions()
            except StoreUnavailable:
                metrics.STATUS_STORE_ERRORS.inc()
        await self.tail.run()

    def _begin(self, partition: TopicPartition, _first: int, end: int) -> int:
        """Where the store says, else a bounded look back from the end."""
        position = self._remembered.get(partition.partition)
        if position is None or position.offset > end:
            return end - self._lookback
        self._epochs[partition].epoch = position.epoch if position.epoch >= 0 else None
        return position.offset

    def _on_records(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        epochs = self._epochs[partition]
        if epochs.epoch is None:
            epochs.begin(_leading_epochs(records))
        touched: dict[str, None] = {}
        fold_each("ingress", records, lambda record: self._on_record(record, epochs, touched))
        self.followers.wake_all(touched)
        if self.store is not None:
            self._mark(partition.partition, touched)

    def _on_record(self, record: Record, epochs: EpochFilter, touched: dict[str, None]) -> None:
        if record.value is None:
            return
        kind = _kind_of(record)
        if kind == "planner_started":
            epochs.started(record.offset)
        elif kind not in SHOWN and kind not in LEDGER:
            return  # nobody is shown anything of it
        elif epochs.admits_value(record.value, record.offset) and record.key is not None:
            job = record.key.decode("utf-8", "replace")
            if kind in LEDGER:  # of no job
                self.tenants.on_event(kind, record.value)
                return
            touched[job] = None
            self._on_event(job, record.partition, RawEvent(record.offset, kind, record.value))

    def _on_event(self, job: str, home: int, event: RawEvent) -> None:
        self.journal.add(job, home, event)
        if event.kind == "job_accepted":
            source = _last(_SOURCE, event.value, b'"source":')
            place = (int(source[1]), int(source[2])) if source else (None, None)
            self.backlog.on_accepted(_class_of(event.value), *place)
        elif event.kind == "job_settled":
            self.backlog.on_settled(_class_of(event.value))
            self.watchlist.on_settled(job, event.value)

    def _mark(self, partition: int, jobs: Mapping[str, None]) -> None:
        dirty = self._dirty[partition]
        dirty.update(jobs)
        while len(dirty) > _MAX_DIRTY:
            dirty.pop(next(iter(dirty)))

    def remember(self, status: JobStatus) -> None:
        """A job was queued from here: other instances shall know of it before its first event."""
        self.journal.submitted(status)
        if self.store is not None:
            self._queued.append(status)

    async def flush_forever(self) -> None:
        """Write changed views to the store, at most once per period; the store's absence costs status there, nothing else."""
        while True:
            await self._clock.sleep(self._flush_seconds)
            if self.store is None:
                continue
            try:
                await self._flush(self.store)
            except StoreUnavailable:
                metrics.STATUS_STORE_ERRORS.inc()
                await self._clock.sleep(1.0)

    async def _flush(self, store: StatusStore) -> None:
        if self._queued:
            await store.remember(list(self._queued))
            self._queued.clear()
        for partition in self._partitions:
            number = partition.partition
            position = self.tail.positions.get(partition)
            if position is None or self._saved.get(number) == position:
                continue
            jobs, self._dirty[number] = self._dirty[number], {}
            epoch = self._epochs[partition].epoch
            try:
                await store.save(number, Position(position, -1 if epoch is None else epoch), await self._views(store, list(jobs)))
            except StoreUnavailable:
                self._mark(number, jobs)
                raise
            self._saved[number] = position

    async def _views(self, store: StatusStore, jobs: Sequence[str]) -> list[JobStatus]:
        """The current view of each job, on top of the stored one when the journal has not seen the job's beginning."""
        partial = [job for job in jobs if not self.journal.is_whole(job)]
        stored = await store.load_many(partial)
        views = []
        for number, job in enumerate(jobs):
            try:
                view = self.journal.status(job, stored.get(job))
            except ValidationError:
                continue
            if view is not None:
                views.append(view)
            if number % _STORE_BATCH == _STORE_BATCH - 1:
                await self._clock.sleep(0)
        return views


def _leading_epochs(records: Sequence[Record]) -> list[int]:
    found = []
    for record in records:
        if _kind_of(record) == "planner_started":
            break
        epoch = None if record.value is None else epoch_of(record.value)
        if epoch is not None and epoch < record.offset:
            found.append(epoch)
    return found


def _kind_of(record: Record) -> str:
    for name, value in record.headers:
        if name == headers.TYPE:
            return _KINDS.get(value) or value.decode("ascii", "replace")
    try:
        body = from_json(record.value or b"")
    except ValueError:
        return ""
    return str(body.get("type", "")) if isinstance(body, dict) else ""


def _last(pattern: re.Pattern[bytes], value: bytes, marker: bytes) -> re.Match[bytes] | None:
    """The last occurrence: what a caller wrote comes before what the planner appends."""
    at = value.rfind(marker)
    return pattern.match(value, at) if at >= 0 else None


def _class_of(value: bytes) -> PriorityClass:
    found = _last(_CLASS, value, b'"priority_class":')
    return _CLASSES[found[1]] if found else PriorityClass.STANDARD
