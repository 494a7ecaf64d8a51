"""The worker, wired: takes a mailbox, announces its places, runs what it is given at its endpoint, and tells what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from services.worker.announcer import Announcer
from services.worker.backends.base import Backend
from services.worker.backends.choice import backend_of, sharing_calls
from services.worker.chunks import ChunkSender
from services.worker.handlers import MAINTENANCE, AttemptManager
from services.worker.health import Health
from services.worker.keeping import Keeping
from services.worker.leaving import leave
from services.worker.mailbox_reader import MailboxReader
from services.worker.owner.yielding import Yielding
from services.worker.registration import Registration
from services.worker.runner import OwnNode, Runner
from services.worker.settings import WorkerSettings
from services.worker.speeds import Speeds
from services.worker.watch import Watch
from services.worker.wiring import WorkerContext
from shared.contracts import maintenance
from shared.contracts.node import Hardware, Node
from shared.placement.parties import Parties
from shared.processing.blobs import Blobs
from shared.processing.outbox import Outbox
from shared.processing.provision import first_look
from shared.service import Environment, kafka_silence
from shared.service.processor import Processor, every

GATHER_TURNS = 3
"""What is ready now runs first: a step that ends at once has its claim and its outcome in one batch."""


def build(
    environment: Environment, settings: WorkerSettings | None = None, backend: Backend | None = None, found: Hardware | None = None
) -> WorkerService:
    """One worker. Tests and simulations hand in settings, a backend and the hardware; a process takes them from its environment."""
    chosen = settings or WorkerSettings()
    return WorkerService(environment, chosen, backend or backend_of(chosen, environment.clock), found)


class WorkerService:
    """Implements `shared.service.Service`. The parts know nothing of each other beyond what is handed to them here."""

    name = "worker"

    def __init__(self, environment: Environment, settings: WorkerSettings, backend: Backend, found: Hardware | None) -> None:
        self._environment, self._settings, self._backend = environment, settings, backend
        self._processor = Processor(self._connect, reasons=self._reasons, drain=self._drain)
        self.run, self.readiness = self._processor.run, self._processor.readiness
        clock, topics, speeds, parties = environment.clock, environment.topics, Speeds(), Parties(settings.router_gone_seconds)
        here = WorkerContext.of(settings, topics, clock, environment.random, environment.settings)
        self._outbox = Outbox(clock, self.name, topics, gather_turns=GATHER_TURNS)
        self._blobs = Blobs(environment.log, clock, topics, service=self.name, instance=environment.instance)
        self._chunks = ChunkSender(topics, clock, settings)
        self.registration = Registration(here, backend, speeds, found)
        self.attempts = AttemptManager(here, self._outbox, self.registration.lost, parties, Health(here, self.registration, backend))
        health, cap = self.attempts.health, environment.settings.dead_letter_cap
        view, calls = OwnNode(here.node, self.registration, self.attempts.slots, health), sharing_calls(backend, settings, clock)
        runner = Runner(here, view, calls, speeds=speeds, bodies=self._blobs, open_stream=self._chunks.open)
        self.attempts.attach(runner, self._processor.leave)
        self._watch = Watch(here, parties, environment.log, f"{environment.instance}-watch", health)
        self.reader = MailboxReader(here, self.attempts, self._outbox, self._watch, describe=self._describe, cap=cap)
        self.announcer = Announcer(here, self.attempts, self.reader, self.registration, parties=parties, leave=self._processor.leave)
        self.keeping = Keeping(here, self.registration, self.attempts, self._watch, backend)
        self.attempts.chores.ended = self.keeping.on_task
        self._watch.on_node = self.announcer.on_own_record
        self._watch.kinds = {maintenance.KIND: self.attempts.on_maintenance, **self.keeping.kinds}
        servers = environment.settings.kafka_servers
        self.yielding = Yielding(here, self.attempts, self.registration, self.announcer, backend=backend, servers=servers)

    async def _connect(self) -> None:
        env, settings, processor = self._environment, self._settings, self._processor
        log_, clock, instance = env.log, env.clock, env.instance
        processor.closes(self._backend, self._blobs)
        await first_look(log_, env.topics, clock)
        producer = await processor.open(log_.producer(client_id=f"{instance}-outcomes"))
        chunk_producer = await processor.open(log_.producer(client_id=f"{instance}-chunks", acks=1))
        processor.closes(self.reader)
        await self.reader.start(log_, producer, f"{instance}-mailbox")
        await self.registration.start()
        processor.spawn(
            *self._watch.parts(),
            self.reader.run(),
            self.reader.run_commits(),
            self._outbox.run(producer),
            self._chunks.run(chunk_producer),
            self.announcer.run_credits(producer),
            self.announcer.run_node(producer),
            self.registration.run(),
            self.attempts.health.run(),
            self.yielding.run(),
            self.keeping.run(),
            every(clock, settings.renew_seconds, self.attempts.renew),
            every(clock, settings.sweep_seconds, self.attempts.sweep),
        )

    def _reasons(self) -> Iterator[str]:
        if self.reader.waits_for:
            yield self.reader.waits_for
        # Credits go out every second: what is not acknowledged for long tells that nobody is there; a refusal tells it at once.
        at, healthy = self.announcer.acknowledged_at, self.reader.answered and not self._outbox.failing
        yield from kafka_silence(at if healthy or at is None else -inf, self._environment.clock.monotonic())
        yield from self.attempts.reasons()

    def _describe(self, number: int) -> Node:
        closings, chores = self.attempts.closings, self.attempts.chores.now()
        record = self.registration.record(number, draining=bool(closings), maintenance=MAINTENANCE in closings)
        return self.yielding.described(self.attempts.health.describe(record.changed(tasks=chores)))

    async def _drain(self) -> None:
        clock, grace = self._environment.clock, self._environment.settings.grace_seconds
        await leave(self.attempts, self.announcer, self.reader, outbox=self._outbox, clock=clock, grace_seconds=grace)
