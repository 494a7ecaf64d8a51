"""Handlers: what all routes share, in one Door: admission, submission, cancellation, and the status of a job wherever it is known."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from services.ingress.admission.backlog import Backlog
from services.ingress.admission.idempotency import is_same
from services.ingress.admission.meter import Charge, Meter, estimate
from services.ingress.admission.offered import Offered
from services.ingress.admission.tenant_days import TenantDays
from services.ingress.catalogue import Registry
from services.ingress.http.bodies import BodyBudget
from services.ingress.problems import InstanceLeaving, Refused, kafka_away, no_node
from services.ingress.replies.register import Following, Guest, Register, WaitKind
from services.ingress.replies.waiters import Caller, Follow, Waiters
from services.ingress.settings import IngressSettings
from services.ingress.status.events_reader import EventsReader
from services.ingress.status.files import StoredFiles
from services.ingress.status.followers import Followers
from services.ingress.status.journal import Journal
from services.ingress.status.status import JobState, JobStatus, ended
from services.ingress.status.store import StatusStore
from services.ingress.submit import NewJob, Submitter
from shared.access import OPEN, Access, Client
from shared.clock import Clock, until
from shared.contracts.base import INLINE_BYTES, PriorityClass
from shared.contracts.blob import BlobRef
from shared.contracts.failure import FailureKind
from shared.contracts.headers import HELD_JOB
from shared.contracts.job import Job
from shared.contracts.result import Result
from shared.errors import Conflict, Overloaded, StoreAway, TuttiError
from shared.inputs import held, input_of
from shared.kafka.port import Appended
from shared.processing.blobs import BlobGone, Blobs
from shared.processing.lane import Sent, may_be_written
from shared.scheduling.places import PlaceInLine
from shared.telemetry import metrics

_NODE_POLL_SECONDS = 0.05
_DISMISSED_SECONDS = 0.5
"""Who is told to go has so long to do so."""


@dataclass(slots=True)
class Door:
    """One per instance."""

    settings: IngressSettings
    clock: Clock
    waiters: Waiters
    blobs: Blobs
    submitter: Submitter
    registry: Registry
    events: EventsReader
    meter: Meter
    offered: Offered
    access: Access
    files: StoredFiles
    register: Register = field(init=False)
    bodies: BodyBudget = field(init=False)
    backlog: Backlog = field(init=False)
    journal: Journal = field(init=False)
    followers: Followers = field(init=False)
    store: StatusStore | None = field(init=False)
    tenants: TenantDays = field(init=False)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once replies are read and jobs can be written; cleared when the instance is leaving."""
    leaving: bool = False
    seeking: int = 0
    """Requests that wait a moment for Kafka or for a node, before they have a job."""

    def __post_init__(self) -> None:
        settings, events = self.settings, self.events
        self.bodies = BodyBudget(settings.bodies_bytes)
        self.register = Register(settings, events.hurry)
        self.backlog, self.journal, self.followers = events.backlog, events.journal, events.followers
        self.store, self.tenants = events.store, events.tenants

    def refresh(self) -> None:
        """What is counted anew each second."""
        now = self.clock.monotonic()
        self.registry.refresh(now)
        self.files.sweep()
        self.events.lines.look(self.registry.catalogue.slots, now)

    def sweep(self) -> None:
        """Deadlines, heartbeats, clients that read nothing: everything that time brings about."""
        now, register = self.clock.monotonic(), self.register
        self.registry.look()
        self.submitter.expire()
        self.waiters.sweep(now, self.settings.heartbeat_seconds)
        if self.leaving:
            register.dismiss(WaitKind.END, WaitKind.EVENTS)
        register.sweep(now)
        for kind in WaitKind:
            metrics.WAITING_CALLERS.labels(kind.value).set(register.count(kind))

    async def drain(self, seconds: float) -> None:
        """Whoever can go on elsewhere goes at once (the sweep tells them); who waits for an answer has it, if it comes in time."""
        self.leaving = True
        register, look_seconds = self.register, self.settings.sweep_seconds
        await until(self.clock, lambda: not len(register), seconds, look_seconds)
        register.dismiss(*WaitKind)
        await until(self.clock, lambda: not len(register), _DISMISSED_SECONDS, look_seconds)
        register.cut_off()
        await self.clock.sleep(look_seconds)

    async def close(self) -> None:
        """Whoever waits goes elsewhere. An instance that was told to stop has drained, and nobody does; one that ends by itself has not."""
        self.leaving = True
        self.register.dismiss(*WaitKind)
        self.submitter.expire(sys.float_info.max)

    async def open(self) -> None:
        """Wait, within bounds, until jobs can be taken. Raises Refused, InstanceLeaving (both 503)."""
        if self.opened.is_set() and not self.leaving:
            return
        self.stay()
        with self._seek():
            try:
                async with asyncio.timeout(self.settings.accept_seconds):
                    await self.opened.wait()
            except TimeoutError:
                raise Refused(kafka_away(self.settings.retry_after_seconds)) from None

    def stay(self) -> None:
        """Raises InstanceLeaving: whoever would wait here goes to another instance."""
        if self.leaving:
            raise InstanceLeaving

    @contextmanager
    def _seek(self) -> Iterator[None]:
        """Raises Overloaded when as many wait for what they need as may wait for an answer."""
        if self.seeking >= self.settings.in_flight:
            raise Overloaded("too many requests wait to be taken", retry_after_seconds=self.settings.retry_after_seconds)
        self.seeking += 1
        try:
            yield
        finally:
            self.seeking -= 1

    @asynccontextmanager
    async def charged(self, client: Client, job: Job, identifier: str, *, known: bool) -> AsyncIterator[Charge]:
        """Take of the caller's key what the job may use; given back where it is refused, settled at its end. One known costs a request."""
        tokens = 0 if known or client.tokens is None else estimate(job, self.offered.patterns, self.settings.answer_tokens)
        charge = await self.meter.charge(client, tokens)
        try:
            yield charge
        except TuttiError:
            self.meter.correct(charge, 0)
            raise
        if not known:
            self.meter.watch(charge, identifier)

    async def judge(self, job: Job, client: Client, priority_class: PriorityClass, seconds: float, *, at_once: bool) -> None:
        """All that is known here against taking the job, before anything is written. `seconds`: until its deadline.

        Raises Refused, Overloaded, and as `Offered.check`.
        """
        self.offered.check(job, client)
        self.offered.check_suits(job)
        if at_once and priority_class is PriorityClass.INTERACTIVE:
            await self.find_node(self.offered.meant(job.model, capability=job.needed_capability), job.needed_capability)
        if job.not_before is None:
            self.admit(priority_class, seconds)

    def admit(self, priority_class: PriorityClass, deadline_seconds: float) -> None:
        """Raises Overloaded when the class backlog says that the deadline, or the configured bound, cannot be met."""
        bound = min(deadline_seconds, self.settings.backlog_wait_seconds.get(priority_class, deadline_seconds))
        retry_after = self.backlog.retry_after_seconds(priority_class, bound, self.settings.backlog_jobs)
        if retry_after is not None:
            raise Overloaded(f"the {priority_class.value} backlog does not allow an answer in time", retry_after_seconds=retry_after)

    def admit_caller(self) -> None:
        """Raises Overloaded when too many callers wait here."""
        self.register.check(WaitKind.ANSWER)

    async def find_node(self, models: Iterable[str], capability: str) -> None:
        """Wait a little for a live node that could serve; raises Refused (503) that says what is missing."""
        if not self.registry.complete:
            return
        wanted = tuple(models)
        until = self.clock.monotonic() + self.settings.no_node_wait_seconds
        if not self.registry.catalogue.missing(wanted, capability):
            return
        with self._seek():
            while missing := self.registry.catalogue.missing(wanted, capability):
                if self.clock.monotonic() >= until or self.leaving:
                    raise Refused(no_node(missing, self.settings.retry_after_seconds))
                await self.clock.sleep(_NODE_POLL_SECONDS)

    @contextmanager
    def waiting(self, kind: WaitKind, tenant: str, seconds: float) -> Iterator[Following]:
        """Somebody waits for news of a job, so long at most. Raises InstanceLeaving, Overloaded."""
        self.stay()
        reader = Following(kind, tenant, self.clock.monotonic() + seconds)
        self.register.enter(reader)
        try:
            yield reader
        finally:
            self.register.leave(reader)

    async def record_of(self, job: Job, client: Client) -> NewJob:
        """The job as it goes out: above the inline bound its input is kept in a blob first.

        Raises TooLarge, Refused (503).
        """
        body, key = job.record(), None if client is OPEN else client.name
        if len(body) <= INLINE_BYTES:
            return NewJob(job, body, key=key)
        given = input_of(job, hands_on=self.offered.patterns.hands_on(job.pattern))
        by_reference = held(job, given, await self.kept(job.tenant, given.to_bytes()))
        return NewJob(by_reference, by_reference.record(), HELD_JOB, key)

    async def kept(self, tenant: str, body: bytes) -> BlobRef:
        """The body as a blob. Raises TooLarge, Refused (503), LogError."""
        try:
            async with asyncio.timeout(self.settings.accept_seconds):
                return await self.blobs.store(tenant, body)
        except TimeoutError:
            raise Refused(kafka_away(self.settings.retry_after_seconds)) from None

    async def whole(self, guest: Guest, result: Result) -> Result:
        """The result with its answer, where that is by reference: its bytes count until the guest leaves. Raises BlobGone."""
        if result.answer is not None and result.answer.blob is not None:
            await self.bodies.hold(guest, result.answer.blob.size)
        return await self.blobs.whole(result)

    async def whole_now(self, guest: Guest, result: Result) -> Result | None:
        """The same; None where it is not to be had now."""
        with suppress(BlobGone, TimeoutError):
            async with asyncio.timeout(self.settings.accept_seconds):
                return await self.whole(guest, result)
        return None

    async def public(self, guest: Guest, status: JobStatus) -> bytes:
        """The status as JSON for callers; of an answer that is not to be had now its reference."""
        found = None if status.result is None else await self.whole_now(guest, status.result)
        return (status if found is None else status.model_copy(update={"result": found})).public()

    def call(
        self, record: NewJob, priority_class: PriorityClass, wait_seconds: float, trace: str | None, digest: str | None = None
    ) -> tuple[Caller, bytes]:
        """Submit for somebody who waits here; returns who waits and the correlation. Raises Overloaded.

        Of a job whose id was made here: it is the same inside the cluster and for its caller.
        """
        caller, correlation = self._wait(record.job, wait_seconds, digest)
        try:
            fate = partial(self._on_fate, caller)
            self.submitter.submit(caller.job, record, priority_class, correlation=correlation, trace=trace, fate=fate, digest=digest)
        except BaseException:
            self.leave(caller, correlation)
            raise
        return caller, correlation

    def may_join(self, status: JobStatus) -> bool:
        """Whether the end of this job will be seen here, or was, so that it need not be asked for again."""
        return status.result is not None or self.events.established(status.home)

    def join(self, job: Job, wait_seconds: float) -> tuple[Caller, bytes]:
        """Wait for the end of a job that was submitted before. It may have ended already."""
        caller, correlation = self._wait(job, wait_seconds)
        caller.acknowledged = True
        return caller, correlation

    def _wait(self, job: Job, seconds: float, digest: str | None = None) -> tuple[Caller, bytes]:
        assert job.id is not None, "the ingress gives every job an id"
        until = self.clock.monotonic() + seconds + self.settings.deadline_grace_seconds
        caller = Caller(job.id, self.submitter.home_of(job.id), until, self.whole, stream=job.stream, tenant=job.tenant)
        self.register.enter(caller)
        return caller, self.waiters.add(caller, digest)

    def leave(self, caller: Caller, correlation: bytes) -> None:
        """He waits no longer."""
        caller.close()
        self.bodies.let_go(caller)
        self.register.leave(caller)
        self.waiters.remove(correlation)

    def _on_fate(self, caller: Caller, sent: Sent) -> None:
        if isinstance(sent, Appended):
            caller.on_acknowledged(sent.offset)
            return
        caller.fail(sent)
        if may_be_written(sent):
            self.submitter.withdraw(caller.job, caller.home)

    async def enqueue(
        self,
        job: str,
        record: NewJob,
        priority_class: PriorityClass,
        *,
        trace: str | None,
        follow: Follow | None,
        digest: str | None = None,
    ) -> int:
        """Submit a job that nobody waits for; returns when Kafka has it, with its offset. Raises TooLarge, Overloaded, LogError.

        `job` is the id that its caller knows. `follow` keeps its chunks here for whoever reads its event stream, and the planner's answer.
        """
        home = self.submitter.home_of(job)
        correlation = None if follow is None else self.waiters.follow(follow, digest)
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        fate = partial(self._written, job, home, written)
        self.submitter.submit(job, record, priority_class, correlation=correlation, trace=trace, fate=fate, digest=digest)
        return await written

    async def known(self, job: str, digest: str) -> JobStatus | None:
        """What is known of this request's job; None also where that cannot be told. Raises Conflict when it is another request's."""
        status = await self._status(job)
        return status if status is not None and is_same(status, digest) else None

    async def claim(self, job: str, digest: str) -> bool:
        """Whether the store vouches that the id is new; false when it is not, or no store can tell. Raises Conflict."""
        if self.store is None:
            return False
        try:
            claimed = await self.store.claim(job, digest)
        except StoreAway:
            metrics.STATUS_STORE_ERRORS.inc()
            return False
        if claimed is None:
            raise Conflict
        return claimed

    async def first_word(self, follow: Follow, digest: str) -> None:
        """Wait, within bounds, for what the planner says to a repeated id. Raises Conflict when it knows it as another request."""
        with self.followers.following(follow.job) as news, suppress(TimeoutError):
            async with asyncio.timeout(self.settings.first_word_seconds):
                while follow.result is None:
                    news.clear()
                    status = self.journal.status(follow.job)
                    if status is not None and status.accepted_at is not None and is_same(status, digest):
                        return
                    await news.wait()
        if follow.result is not None and _is_conflict(follow.result):
            raise Conflict

    def told(self, digest: str, result: Result) -> None:
        """The planner answered a repeated id: of a job that ended out of this instance's sight this is all that is known here."""
        if not _is_conflict(result):
            self.journal.told(ended(result, self.submitter.home_of(result.job), digest))

    def _written(self, job: str, home: int, written: asyncio.Future[int], sent: Sent) -> None:
        if not isinstance(sent, Appended) and may_be_written(sent):
            self.submitter.withdraw(job, home)
        if written.done():
            return
        if isinstance(sent, Appended):
            written.set_result(sent.offset)
        else:
            written.set_exception(sent)

    def place(self, status: JobStatus) -> PlaceInLine | None:
        """Where the job stands in line; None where it waits for no node, or places are not told."""
        if not self.settings.places or status.state is JobState.SETTLED or status.waits() is not None:
            return None
        return self.events.lines.place(status, self.registry.catalogue.slots, self.clock.monotonic())

    def place_of(self, caller: Caller, priority_class: PriorityClass) -> PlaceInLine | None:
        """The same of somebody who waits here."""
        status = JobStatus(id=caller.job, home=caller.home, tenant=caller.tenant, queued_offset=caller.offset)
        status.priority_class = priority_class
        return self.place(status)

    async def visible(self, client: Client, job: str) -> JobStatus | None:
        """What the client may see of a job: nothing, as of one that never was, unless it is known to be one that he may act for."""
        status = await self._status(job)
        return status if status is not None and client.may_see(status.owner) else None

    async def _status(self, job: str) -> JobStatus | None:
        """The job as known in memory, or in the store; the store's absence costs only what is older than memory."""
        if self.store is None or self.journal.is_whole(job):
            return self.journal.status(job)
        stored = None
        try:
            stored = await self.store.load(job)
        except StoreAway:
            metrics.STATUS_STORE_ERRORS.inc()
        return self.journal.status(job, stored)


def _is_conflict(result: Result) -> bool:
    return result.failure is not None and result.failure.kind is FailureKind.CONFLICT
