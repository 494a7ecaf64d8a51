"""EventsReader: all partitions of `job-events` into the journal, the backlog's counts and, throttled, the status store; and to who waits.

The hot path parses nothing: the type comes from a header, the job from the key, the epoch from the first bytes; bodies wait in the
journal until somebody asks or the store is written.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from services.ingress.admission.backlog import Backlog
from services.ingress.admission.tenant_days import TenantDays
from services.ingress.replies.ends import Ends
from services.ingress.settings import IngressSettings
from services.ingress.status.followers import Followers
from services.ingress.status.journal import Journal
from services.ingress.status.lines import Lines
from services.ingress.status.reviews import Reviews
from services.ingress.status.shown import LEDGER, SHOWN, RawEvent, class_of, kind_in, last
from services.ingress.status.status import JobStatus
from services.ingress.status.store import Position, StatusStore
from shared.contracts import headers
from shared.contracts.batch import BatchChanged
from shared.contracts.conversation import ConversationChanged
from shared.contracts.event import PlannerStarted
from shared.epochs import EpochFilter, epoch_of
from shared.errors import LogError, StoreAway
from shared.kafka.port import Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.tail import Tail
from shared.service import Environment
from shared.services import group_of
from shared.tasks import ended
from shared.telemetry import logs, metrics

_log = logs.get(__name__)
_SOURCE = re.compile(rb'"source":"[^"\\]+/(\d{1,9})/(\d{1,18})"')
_KINDS = {kind.encode(): kind for kind in ("planner_started", *SHOWN, *LEDGER)}
_STORE_BATCH = 500
_RESULTS_LOOKBACK = 1_000
"""A result follows its settle event by a fraction of a second."""
_LOOK_SECONDS = 0.5
_TRIES, _AGAIN_SECONDS = 10, 0.5
"""A cold coordinator of the planners' group does not answer at once."""
_MAX_DIRTY = 20_000
"""Changed jobs a partition that wait for the store; beyond that the oldest are not written (their status is in the journal for a while)."""
_MOST_NAMES = 50_000
"""Conversations, or batches, of about 1 kB each; of more, the longest unused are not seen here."""
_E = TypeVar("_E", BatchChanged, ConversationChanged)


class _Newest(Generic[_E]):
    """Of each conversation or batch its newest event, which is all of it: (tenant, name) → it. `named`: its field with the name.

    Their texts are not kept here: they lie in blobs, and are read when somebody asks.
    """

    def __init__(self, event: type[_E], named: str) -> None:
        self._event: type[_E] = event
        self._named = named
        self._known: OrderedDict[tuple[str, str], _E] = OrderedDict()

    def __iter__(self) -> Iterator[_E]:
        """Those used last first."""
        return reversed(self._known.values())

    def get(self, tenant: str, name: str) -> _E | None:
        return self._known.get((tenant, name))

    def on_event(self, value: bytes) -> None:
        """A valid one. Raises ValueError when it cannot be read."""
        changed = self._event.model_validate_json(value)
        key = changed.tenant, getattr(changed, self._named)
        self._known.pop(key, None)
        if not changed.gone:
            self._known[key] = changed
        if len(self._known) > _MOST_NAMES:
            self._known.popitem(last=False)
            _log.warning("not_listed", what=self._named, most=_MOST_NAMES)


class EventsReader:
    """One tail over all home partitions, and all that is known from it; `flush` is called by its own loop.

    `callers`: told of ends where the epoch is established (`shared/epochs.py`).
    """

    def __init__(self, environment: Environment, settings: IngressSettings, store: StatusStore | None, callers: Ends) -> None:
        self._log, self._callers, self._instance = environment.log, callers, environment.instance
        self.charges = Ends(settings.watched_jobs)
        """Accounts, told by the best guess, too."""
        self.hurry = asyncio.Event()
        """Set while somebody waits: nothing is gathered then."""
        self._clock, self.store = environment.clock, store
        self.journal = Journal(jobs=settings.journal_jobs, size=settings.journal_bytes, events_per_job=settings.journal_events_per_job)
        self.backlog, self.followers, self.tenants = Backlog(), Followers(), TenantDays()
        self.lines = Lines(environment.topics.settings.capabilities, self.backlog)
        self._lookback, self._flush_seconds = settings.events_lookback, settings.flush_seconds
        topics, partitions = environment.topics, environment.topics.settings.home_partitions
        self.reviews = Reviews(environment.log, topics.job_events, environment.instance)
        self.conversations, self.batches = _Newest(ConversationChanged, "conversation"), _Newest(BatchChanged, "batch")
        of_owners: dict[str, _Newest[Any]] = {"conversation_changed": self.conversations, "batch_changed": self.batches}
        self._of_owners = of_owners
        self._partitions = [TopicPartition(topics.job_events, number) for number in range(partitions)]
        self._results = [TopicPartition(topics.results, number) for number in range(topics.partitions("other"))]
        self._missed = asyncio.Event()
        self._epochs = {partition: EpochFilter() for partition in self._partitions}
        self._watermarks: dict[TopicPartition, int | None] = {}
        """Of the planners, each the place of a valid record; until it is read."""
        self._planners = group_of("planner", topics.settings.prefix)
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
            hurry=self.hurry,
        )

    async def run(self) -> None:
        """Follow the events until cancelled."""
        self._watermarks = await self._committed()
        if self.store is not None:
            try:
                self._remembered = await self.store.positions()
            except StoreAway:
                metrics.STATUS_STORE_ERRORS.inc()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tail.run())
            group.create_task(self._tell_by_results())

    async def _tell_by_results(self) -> None:
        """Who waited while events were missed may have been told by one of them, or by one that is not known to be valid: his job's result
        is as good, and is read until nobody is left who waited then.
        """
        while True:
            await self._missed.wait()
            self._missed.clear()
            client = f"tutti-ingress-results-{self._instance}"
            tail = Tail(self._log, self._clock, self._results, client_id=client, begin=_lately, handle=self._on_results)
            reading = asyncio.create_task(tail.run())
            try:
                waited = self._callers.jobs()
                while waited & self._callers.jobs() and not self._missed.is_set():
                    await self._clock.sleep(_LOOK_SECONDS)
            finally:
                await ended(reading)

    def _on_results(self, _: TopicPartition, records: Sequence[Record]) -> None:
        fold_each("ingress", records, self._on_result)

    def _on_result(self, record: Record) -> None:
        if record.key is not None and record.value is not None:
            self._callers.on_result(record.key.decode("utf-8", "replace"), record.value)

    async def _committed(self) -> dict[TopicPartition, int | None]:
        """The planners' watermarks; none of them where Kafka does not tell them: then nothing is established until a planner starts."""
        for _ in range(_TRIES):
            try:
                consumer = await self._log.consumer(client_id="tutti-ingress-watermarks", group=self._planners)
                try:
                    return await consumer.committed(self._partitions)
                finally:
                    await consumer.close()
            except LogError as error:
                _log.warning("watermarks_unknown", reason=error.message)
                await self._clock.sleep(_AGAIN_SECONDS)
        return {}

    def established(self, home: int) -> bool:
        """Whether callers of this home are told by its events; of others a final must be asked for."""
        return self._epochs[self._partitions[home]].established

    def _begin(self, partition: TopicPartition, first: int, end: int) -> int:
        """Where the store says, else a bounded look back from the end; no later than the watermark, from which on the epoch is known."""
        position, watermark = self._remembered.get(partition.partition), self._watermarks.get(partition)
        begin = end - self._lookback
        if position is not None and position.offset <= end:
            self._epochs[partition].epoch = position.epoch if position.epoch >= 0 else None
            begin = position.offset
        if watermark is None or not first <= watermark < end:
            self._watermarks[partition] = None
            return begin
        return min(begin, watermark)

    def _on_records(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        epochs = self._epochs[partition]
        if records[0].offset != self.tail.positions[partition]:
            _log.warning("events_missed", home=partition.partition, expected=self.tail.positions[partition], got=records[0].offset)
            epochs.missed()
            self._missed.set()
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
        if self._watermarks.get(partition := self._partitions[record.partition]) == record.offset:
            self._watermarks[partition] = None
            if (epoch := epoch_of(record.value)) is not None:
                epochs.establish(epoch)
        if kind == "planner_started":
            PlannerStarted.model_validate_json(record.value)  # an odd record says so, too
            epochs.started(record.offset)
        elif kind not in SHOWN and kind not in LEDGER:
            return  # nobody is shown anything of it
        elif epochs.admits_value(record.value, record.offset) and record.key is not None:
            job = record.key.decode("utf-8", "replace")
            if kind in LEDGER:  # of no job
                if (newest := self._of_owners.get(kind)) is not None:
                    newest.on_event(record.value)
                    self.followers.wake(job)
                else:
                    self.tenants.on_event(kind, record.value)
                return
            touched[job] = None
            self._on_event(job, record.partition, RawEvent(record.offset, kind, record.value), established=epochs.established)

    def _on_event(self, job: str, home: int, event: RawEvent, *, established: bool) -> None:
        self.journal.add(job, home, event)
        self.reviews.on_event(job, home, event)
        if event.kind == "job_accepted":
            source, priority_class = last(_SOURCE, event.value, b'"source":'), class_of(event.value)
            place = (int(source[1]), int(source[2])) if source else (None, None)
            self.backlog.on_accepted(priority_class, *place)
            self.lines.on_accepted(job, event.value, priority_class, self._clock.monotonic())
            return
        self.lines.on_event(job, event, self._clock.monotonic())
        if event.kind == "job_settled":
            self.backlog.on_settled(class_of(event.value))
            self.charges.on_settled(job, event.value)
            if established:
                self._callers.on_settled(job, event.value)

    def _mark(self, partition: int, jobs: Mapping[str, None]) -> None:
        dirty = self._dirty[partition]
        dirty.update(jobs)
        while len(dirty) > _MAX_DIRTY:
            dirty.pop(next(iter(dirty)))

    async def remember(self, status: JobStatus) -> None:
        """A job was queued from here. When this returns other instances know of it, before its first event; later if the store is away."""
        self.journal.submitted(status)
        if self.store is not None:
            self._queued.append(status)
            try:
                await self._tell_queued(self.store)
            except StoreAway:
                metrics.STATUS_STORE_ERRORS.inc()

    async def erase(self, tenant: str, before: float) -> int:
        """Forget a tenant's jobs of before, here and in the store; how many there. Raises StoreAway."""
        self.journal.forget(tenant)
        return 0 if self.store is None else await self.store.erase(tenant, before)

    async def flush_forever(self) -> None:
        """Write changed views to the store, at most once per period; the store's absence costs status there, nothing else."""
        while True:
            await self._clock.sleep(self._flush_seconds)
            if self.store is None:
                continue
            try:
                await self._flush(self.store)
            except StoreAway:
                metrics.STATUS_STORE_ERRORS.inc()
                await self._clock.sleep(1.0)

    async def _flush(self, store: StatusStore) -> None:
        await self._tell_queued(store)
        for partition in self._partitions:
            number = partition.partition
            position = self.tail.positions.get(partition)
            if position is None or self._saved.get(number) == position:
                continue
            jobs, self._dirty[number] = self._dirty[number], {}
            epoch = self._epochs[partition].epoch
            try:
                await store.save(number, Position(position, -1 if epoch is None else epoch), await self._views(store, list(jobs)))
            except StoreAway:
                self._mark(number, jobs)
                raise
            self._saved[number] = position

    async def _tell_queued(self, store: StatusStore) -> None:
        """What comes meanwhile waits for the next time. Raises StoreAway; then these wait, too."""
        if not self._queued:
            return
        queued = tuple(self._queued)
        self._queued.clear()
        try:
            await store.remember(queued)
        except BaseException:
            self._queued.extendleft(reversed(queued[: _MAX_DIRTY - len(self._queued)]))
            raise

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


def _lately(_: TopicPartition, first: int, end: int) -> int:
    return max(first, end - _RESULTS_LOOKBACK)


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
    return kind_in(record.value or b"")
