"""The ingress, wired: one producer with its outbox, three readers (replies, events, nodes), a probe of the jobs topics, a sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from services.ingress.admission.access import load as load_access
from services.ingress.admission.backlog import Backlog
from services.ingress.admission.bucket_store import BucketStore, RedisBuckets
from services.ingress.admission.meter import Meter
from services.ingress.admission.probe import BacklogProbe
from services.ingress.admission.tenant_days import TenantDays
from services.ingress.api import IngressApi, build_api
from services.ingress.handlers import Door
from services.ingress.http.bodies import BodyBudget
from services.ingress.nodes_reader import NodesReader
from services.ingress.outbox import Outbox
from services.ingress.registry import Registry
from services.ingress.replies.register import Register, WaitKind
from services.ingress.replies.replies import Replies, reply_partition
from services.ingress.replies.waiters import Waiters
from services.ingress.routes.schedules import ScheduleRoutes
from services.ingress.routes.tenants import TenantRoutes
from services.ingress.settings import IngressSettings
from services.ingress.status.events_reader import EventsReader
from services.ingress.status.followers import Followers
from services.ingress.status.journal import Journal
from services.ingress.status.store import RedisStatusStore, StatusStore
from services.ingress.status.watchlist import Watchlist
from services.ingress.submit import Submitter
from shared.contracts import schedule
from shared.kafka.port import TopicPartition
from shared.processing.blobs import Blobs
from shared.processing.provision import first_look
from shared.processing.registry import RegistryReader
from shared.scheduling.schedule_table import ScheduleTable
from shared.service import Environment, Readiness
from shared.telemetry import logs, metrics

_log = logs.get(__name__)
_DRAIN_SECONDS = 1.0
"""Kept of the grace period for writing what the last callers leave behind."""
_REFRESH_SECONDS = 1.0


class Ingress:
    """Implements `shared.service.Service`."""

    def __init__(self, environment: Environment, settings: IngressSettings) -> None:
        self._environment = environment
        self._settings = settings
        self._clock = environment.clock
        topics = environment.topics
        random = environment.random
        self._outbox = Outbox(self._clock, topics, patience_seconds=settings.accept_seconds, capacity=settings.outbox_records)
        waiters = Waiters(f"{random.getrandbits(48):012x}", follows=settings.follows)
        submitter = Submitter(self._outbox, topics, self._clock, random)
        self._replies = Replies(environment.log, self._clock, waiters, environment.instance, report=submitter.report)
        registry = Registry(settings.node_lost_seconds)
        self._nodes = NodesReader(environment.log, self._clock, topics.nodes, environment.instance, registry)
        self._store = _store(settings, topics.settings.prefix)
        journal = Journal(jobs=settings.journal_jobs, size=settings.journal_bytes, events_per_job=settings.journal_events_per_job)
        backlog, followers, watchlist = Backlog(), Followers(), Watchlist(settings.watched_jobs)
        access = load_access(settings.keys_file)
        tenants, schedules = TenantDays(), ScheduleTable(topics.settings.capabilities)
        self._declared = _declared(environment, tenants, schedules)
        schedules.complete = self._declared.caught_up
        self._meter = Meter(self._clock, watchlist, _buckets(settings, topics.settings.prefix), settle_seconds=settings.flush_seconds)
        self._events = EventsReader(
            environment.log,
            self._clock,
            topics.job_events,
            topics.settings.home_partitions,
            environment.instance,
            journal=journal,
            backlog=backlog,
            followers=followers,
            watchlist=watchlist,
            tenants=tenants,
            store=self._store,
            lookback=settings.events_lookback,
            pause_seconds=settings.events_pause_seconds,
            flush_seconds=settings.flush_seconds,
        )
        self._blobs = Blobs(environment.log, self._clock, topics, service=self.name, instance=environment.instance)
        self.desk = Door(
            settings=settings,
            clock=self._clock,
            waiters=waiters,
            register=_register(settings),
            bodies=BodyBudget(settings.bodies_bytes),
            blobs=self._blobs,
            submitter=submitter,
            registry=registry,
            backlog=backlog,
            journal=journal,
            followers=followers,
            events=self._events,
            store=self._store,
            watchlist=watchlist,
            access=access,
            meter=self._meter,
            tenants=tenants,
            capabilities=frozenset(topics.settings.capabilities),
            opened=asyncio.Event(),
        )
        where = (self.desk, self._outbox, topics.registry)
        self._api = build_api(self.desk, "0.1.0", TenantRoutes(*where), ScheduleRoutes(*where, schedules))
        self._prepared = asyncio.Event()
        self._probe = BacklogProbe(
            environment.log, self._clock, topics, environment.instance, backlog=backlog, seconds=settings.backlog_seconds
        )
        self._refreshed_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        return "ingress"

    def asgi(self) -> IngressApi:
        """The FastAPI application."""
        return self._api

    def readiness(self) -> Readiness:
        """Ready when replies are read, Kafka answers, and writes go through."""
        reasons = []
        if not self.desk.opened.is_set():
            reasons.append("replies are not read yet")
        reasons += self._probe.silence
        if self._outbox.failing:
            reasons.append("Kafka does not acknowledge writes")
        return Readiness(not reasons, tuple(reasons))

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; then let callers who wait have their answers, within the grace period."""
        stopping = asyncio.create_task(stop.wait())
        if self.desk.access.open:
            _log.warning("ingress_open", hint="no API keys are configured (TUTTI_INGRESS__KEYS_FILE): everybody may act for every tenant")
        self._spawn(self._prepare())
        for work in (self._write, self._replies.tail.run, self._events.run, self._nodes.tail.run, self._declared.run, self._probe.run):
            self._spawn(self._prepared_then(work))
        for loop in (self._open(), self._sweep(), self._events.flush_forever(), self._meter.settle_forever()):
            self._spawn(loop)
        try:
            await self._until(stopping)
            await self._drain()
        finally:
            stopping.cancel()
            await self._close()

    async def _prepare(self) -> None:
        """A look at the topics first: a reader of one that is not there only fails and tries again."""
        topics = self._environment.topics
        await first_look(self._environment.log, topics, self._clock)
        partition = reply_partition(self._environment.instance, topics.reply_partitions)
        self.desk.submitter.answer_at(partition)
        self._replies.listen_at(TopicPartition(topics.replies, partition))
        self._prepared.set()

    async def _prepared_then(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self._prepared.wait()
        await work()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _until(self, stopping: asyncio.Task[Any]) -> None:
        """Return when asked to stop; raise what ended a loop that never ends."""
        pending: set[asyncio.Task[Any]] = {stopping, *self._tasks}
        while not stopping.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _open(self) -> None:
        """Nothing is sent before replies are read."""
        await self._replies.tail.positioned.wait()
        self.desk.opened.set()
        _log.info("opened", instance=self._environment.instance)

    async def _write(self) -> None:
        producer = await self._environment.log.producer(client_id=f"tutti-ingress-{self._environment.instance}")
        try:
            await self._outbox.drain(producer)
        finally:
            await producer.close()

    async def _sweep(self) -> None:
        """Deadlines, heartbeats, stuck writes, lost nodes: everything that time brings about."""
        desk = self.desk
        while True:
            await self._clock.sleep(self._settings.sweep_seconds)
            now = self._clock.monotonic()
            desk.registry.complete = desk.registry.complete or self._nodes.tail.caught_up()
            if now - self._refreshed_at >= _REFRESH_SECONDS:
                desk.registry.refresh(now)
                self._refreshed_at = now
            self._outbox.expire()
            desk.waiters.sweep(now, self._settings.heartbeat_seconds)
            if desk.leaving:
                desk.register.dismiss(WaitKind.END, WaitKind.EVENTS)
            desk.register.sweep(now)
            for kind in WaitKind:
                metrics.WAITING_CALLERS.labels(kind.value).set(desk.register.count(kind))

    async def _drain(self) -> None:
        """Whoever can go on elsewhere goes at once (the sweep tells them); who waits for an answer has it, if it comes in time."""
        desk = self.desk
        desk.leaving = True
        await self._gone(self._environment.settings.grace_seconds - 2 * _DRAIN_SECONDS)
        desk.register.dismiss(*WaitKind)
        await self._gone(_DRAIN_SECONDS / 2)
        desk.register.cut_off()
        await self._clock.sleep(self._settings.sweep_seconds)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._outbox.empty()
        except TimeoutError:
            _log.warning("unwritten_at_end", records=len(self._outbox))

    async def _gone(self, seconds: float) -> None:
        """Wait, within bounds, until nobody waits here any longer."""
        until = self._clock.monotonic() + seconds
        while len(self.desk.register) and self._clock.monotonic() < until:
            await self._clock.sleep(self._settings.sweep_seconds)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._store is not None:
            await self._store.close()
        await self._meter.close()
        await self._blobs.close()


def _declared(environment: Environment, tenants: TenantDays, schedules: ScheduleTable) -> RegistryReader:
    """What administrators declared, followed."""
    return RegistryReader(
        environment.log,
        environment.clock,
        environment.topics,
        client_id=f"tutti-ingress-registry-{environment.instance}",
        service="ingress",
        kinds={"tenant": tenants.on_entry, schedule.KIND: schedules.apply},
    )


def _register(settings: IngressSettings) -> Register:
    return Register(
        in_flight=settings.in_flight,
        follows=settings.follows,
        stuck_seconds=settings.stuck_seconds,
        retry_after_seconds=settings.retry_after_seconds,
    )


def _store(settings: IngressSettings, prefix: str) -> StatusStore | None:
    if not settings.redis_url:
        return None
    return RedisStatusStore(
        settings.redis_url,
        prefix=prefix,
        ttl_seconds=settings.status_ttl_seconds,
        connections=settings.redis_connections,
        timeout_seconds=settings.redis_timeout_seconds,
    )


def _buckets(settings: IngressSettings, prefix: str) -> BucketStore | None:
    if not (settings.redis_url and settings.keys_file):
        return None
    return RedisBuckets(
        settings.redis_url, prefix=prefix, connections=settings.redis_connections, timeout_seconds=settings.redis_timeout_seconds
    )


def build(environment: Environment, settings: IngressSettings | None = None) -> Ingress:
    """The ingress of one process. Settings come from the environment when not given."""
    return Ingress(environment, settings or IngressSettings())
