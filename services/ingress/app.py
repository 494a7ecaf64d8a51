"""The ingress, wired: one producer with its outbox, readers of replies, events, nodes and the registry, a probe of `jobs.*`, a sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from services.ingress.administered import Administered
from services.ingress.admission.backlog import BacklogProbe
from services.ingress.admission.bucket_store import bucket_store
from services.ingress.admission.meter import Meter
from services.ingress.admission.offered import Offered
from services.ingress.api import IngressApi, build_api
from services.ingress.callbacks.deliveries import Deliveries
from services.ingress.catalogue import Registry
from services.ingress.handlers import Door
from services.ingress.replies.replies import Replies
from services.ingress.replies.waiters import Waiters
from services.ingress.settings import IngressSettings
from services.ingress.status.events_reader import EventsReader
from services.ingress.status.files import StoredFiles
from services.ingress.status.store import status_store
from services.ingress.submit import Submitter
from shared.kafka.port import TopicPartition
from shared.patterns import load
from shared.processing.blobs import Blobs
from shared.processing.outbox import Outbox
from shared.processing.provision import first_look
from shared.service import Environment
from shared.service.processor import Processor, every
from shared.telemetry import logs

_log = logs.get(__name__)
_DRAIN_SECONDS = 1.0
"""Kept of the grace period for writing what the last callers leave behind."""
_REFRESH_SECONDS = 1.0


def build(environment: Environment, settings: IngressSettings | None = None) -> Ingress:
    """The ingress of one process; settings come from its environment unless given."""
    return Ingress(environment, settings or IngressSettings())


class Ingress:
    """Implements `shared.service.Service` and `Answering`."""

    name = "ingress"

    def __init__(self, environment: Environment, settings: IngressSettings) -> None:
        self._env, self._settings = environment, settings
        log, clock, topics, random, name = environment.log, environment.clock, environment.topics, environment.random, environment.instance
        self._outbox = Outbox(clock, self.name, topics, records=settings.outbox_records, patience_seconds=settings.accept_seconds)
        waiters, prefix = Waiters(f"{random.getrandbits(48):012x}", follows=settings.follows), topics.settings.prefix
        self._events = events = EventsReader(environment, settings, status_store(settings, prefix), waiters.ends)
        submitter = Submitter(self._outbox, topics, clock, random, established=events.established)
        self._replies = Replies(log, clock, waiters, name, report=submitter.report)
        registry = Registry(settings.node_lost_seconds)
        self._nodes = registry.follow(log, clock, topics.nodes, name)
        self.deliveries = Deliveries(environment, settings.callbacks, self._outbox)
        self._declared = declared = Administered(environment, settings, events)
        capabilities = frozenset(topics.settings.capabilities)
        self.door = Door(
            settings=settings,
            clock=clock,
            waiters=waiters,
            blobs=Blobs(log, clock, topics, service=self.name, instance=name),
            submitter=submitter,
            registry=registry,
            events=events,
            meter=Meter(clock, events.charges, bucket_store(settings, prefix), settle_seconds=settings.flush_seconds),
            offered=Offered(capabilities, load(environment.settings.patterns), registry, clock, declared.agents, self.deliveries.rules),
            access=declared.access,
            files=StoredFiles(environment, self._outbox),
        )
        self._api = build_api(self.door, environment, self._outbox, declared.schedules, pins=declared.pins)
        self._probe = BacklogProbe(log, clock, topics, name, backlog=events.backlog, seconds=settings.backlog_seconds)
        self._processor = Processor(self._serve, reasons=self._reasons, drain=self._drain)
        self.run, self.readiness = self._processor.run, self._processor.readiness

    def asgi(self) -> IngressApi:
        """The FastAPI application."""
        return self._api

    def _reasons(self) -> Iterator[str]:
        """Ready when replies are read, Kafka answers, and writes go through."""
        if not self.door.opened.is_set():
            yield "replies are not read yet"
        yield from self._probe.silence
        if self._outbox.failing:
            yield "Kafka does not acknowledge writes"

    async def _serve(self) -> None:
        """Whoever comes before Kafka answers is told, or waits a little."""
        settings, clock, door, processor = self._settings, self._env.clock, self.door, self._processor
        processor.closes(door.blobs, door.meter, *([door.store] if door.store is not None else []))
        processor.spawn(self._open(), self._events.flush_forever(), every(clock, settings.sweep_seconds, door.sweep))
        processor.spawn(door.meter.settle_forever(), every(clock, _REFRESH_SECONDS, door.refresh))

    async def _open(self) -> None:
        """Nothing is read before the topics were looked at: readers of missing ones only fail. Nothing is sent before replies are read."""
        env, topics, processor = self._env, self._env.topics, self._processor
        await first_look(env.log, topics, env.clock)
        partition = topics.reply_partition(env.instance)
        self.door.submitter.answer_at(partition)
        self._replies.listen_at(TopicPartition(topics.replies, partition))
        followed = (self._replies.tail, self._events, self._nodes, self._declared, self._probe, self.door.files.tail)
        processor.spawn(*(each.run() for each in followed))
        producer = await processor.open(env.log.producer(client_id=f"tutti-ingress-{env.instance}"))
        processor.closes(self.door)
        processor.spawn(self._outbox.run(producer))
        await self._replies.tail.positioned.wait()
        self.door.opened.set()
        _log.info("opened", instance=env.instance)
        await self.deliveries.join(processor)

    async def _drain(self) -> None:
        """Let callers who wait have their answers, and what the last of them leave behind be written."""
        seconds = self._env.settings.grace_seconds - 2 * _DRAIN_SECONDS
        await asyncio.gather(self.door.drain(seconds), self.deliveries.drain(seconds))
        await self._outbox.idle(_DRAIN_SECONDS)
