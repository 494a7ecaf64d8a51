"""Wiring and life of one worker: connect, take a mailbox, work until told to stop, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

from services.worker import hardware
from services.worker.announcer import Announcer
from services.worker.backends.base import Backend
from services.worker.backends.batching import BatchingBackend
from services.worker.backends.foreign import guarded
from services.worker.backends.in_process import InProcessBackend
from services.worker.backends.ollama import OllamaBackend
from services.worker.backends.openai import OpenAIBackend
from services.worker.chunks import ChunkSender
from services.worker.credits import Routers
from services.worker.handlers import AttemptDesk
from services.worker.mailbox_reader import MailboxReader
from services.worker.outbox import Outbox
from services.worker.outcomes import OutcomeWriter
from services.worker.positions import Positions
from services.worker.registration import Registration
from services.worker.runner import OwnNode, Runner
from services.worker.settings import WorkerSettings
from services.worker.speeds import Speeds
from services.worker.watch import Watch
from shared.clock import Clock
from shared.contracts.node import Hardware, Node
from shared.errors import ConfigurationError, LogError
from shared.kafka.port import Message, Producer
from shared.processing.blobs import Blobs
from shared.processing.provision import first_look
from shared.service import Environment, Readiness, kafka_silence
from shared.telemetry import logs
from shared.topics import Topics

log = logs.get(__name__)

DRAIN_SHARE = 0.7
"""Part of the grace period in which running calls may still end."""
TELLING_SHARE = 0.9
"""Part of it after which the worker leaves even if the cluster could not be told."""
LOOK_SECONDS = 0.02
"""How often a drain looks whether it is over."""


def build(
    environment: Environment,
    settings: WorkerSettings | None = None,
    backend: Backend | None = None,
    found: Hardware | None = None,
) -> WorkerService:
    """One worker. Tests and simulations hand in settings, a backend and the hardware; a process takes them from its environment."""
    settings = settings or WorkerSettings()
    return WorkerService(environment, settings, backend or backend_of(settings, environment.clock), found)


def backend_of(settings: WorkerSettings, clock: Clock) -> Backend:
    """The backend that the settings name."""
    if settings.backend == "ollama":
        return OllamaBackend(settings)
    if settings.backend == "in_process":
        return InProcessBackend(settings.models)
    return OpenAIBackend(settings, clock)


def _chunk_sender(topics: Topics, clock: Clock, settings: WorkerSettings) -> ChunkSender:
    return ChunkSender(
        topics,
        clock,
        shortest_seconds=settings.chunk_min_seconds,
        longest_seconds=settings.chunk_max_seconds,
        most_bytes=settings.chunk_buffer_bytes,
    )


class WorkerService:
    """Implements `shared.service.Service`. The parts know nothing of each other beyond what is handed to them here."""

    name = "worker"

    def __init__(self, environment: Environment, settings: WorkerSettings, backend: Backend, found: Hardware | None) -> None:
        self._environment, self._settings, self._backend, self._hardware = environment, settings, backend, found
        clock, topics, random = environment.clock, environment.topics, environment.random
        self.node = settings.node_id()
        self.boot = f"{random.getrandbits(48):012x}"
        allowed = [name for name in topics.settings.capabilities if not settings.agents or name in settings.agents]
        if not allowed:
            raise ConfigurationError(f"none of the agents {', '.join(settings.agents)} is a capability of this cluster")
        self._known_boots = {self.boot}
        self._superseded, self._probe_now = asyncio.Event(), asyncio.Event()
        self._places_changed, self._node_news = asyncio.Event(), asyncio.Event()
        speeds, routers, positions = Speeds(), Routers(settings.router_gone_seconds), Positions(clock, settings.commit_seconds)
        self.registration = Registration(
            node=self.node, boot=self.boot, settings=settings, backend=backend, speeds=speeds, clock=clock, allowed=allowed
        )
        self.outbox = Outbox(clock, topics, positions.acknowledged)
        self.desk = AttemptDesk(
            node=self.node,
            boot=self.boot,
            settings=settings,
            clock=clock,
            random=random,
            writer=OutcomeWriter(topics.outcomes),
            outbox=self.outbox,
            announce=self._places_changed.set,
            news=self._node_news.set,
            unreachable=self._on_unreachable,
        )
        self.chunks = _chunk_sender(topics, clock, settings)
        self._blobs = Blobs(environment.log, clock, topics, service="worker", instance=environment.instance)
        self.desk.attach(self._runner(speeds))
        self.watch = Watch(
            node=self.node,
            topics=topics,
            clock=clock,
            routers=routers,
            on_router=self._places_changed.set,
            on_node=self._on_own_record,
        )
        self.reader = MailboxReader(
            desk=self.desk,
            outbox=self.outbox,
            watch=self.watch,
            topics=topics,
            clock=clock,
            capabilities=allowed,
            describe=self._describe,
            positions=positions,
            expiry_seconds=settings.node_expiry_seconds,
            cap=environment.settings.dead_letter_cap,
        )
        self.announcer = Announcer(
            desk=self.desk,
            reader=self.reader,
            registration=self.registration,
            routers=routers,
            speeds=speeds,
            settings=settings,
            topics=topics,
            clock=clock,
            places_changed=self._places_changed,
            node_news=self._node_news,
            describe=self._describe,
        )

    def _runner(self, speeds: Speeds) -> Runner:
        settings, clock = self._settings, self._environment.clock
        batching = BatchingBackend(
            guarded(self._backend), clock, delay_seconds=settings.embed_batch_seconds, most_texts=settings.embed_batch_texts
        )
        return Runner(
            node=OwnNode(self.node, self.registration, self.desk.slots),
            backend=batching,
            settings=settings,
            clock=clock,
            speeds=speeds,
            bodies=self._blobs,
            open_stream=self.chunks.open,
        )

    def asgi(self) -> Any | None:
        """Nothing beyond the shell's own routes."""
        return None

    def readiness(self) -> Readiness:
        """Ready to run steps: Kafka answers, a mailbox is taken, the endpoint answers, and wants to be asked."""
        pause = self.desk.pause_seconds()
        reasons = [
            reason
            for reason in (
                self.reader.waits_for,
                *self._kafka_silence(),
                None if self.registration.reachable else "the model endpoint does not answer",
                self.desk.closed,
                f"the endpoint asks not to be called for {pause:.0f} s" if pause > 0 else None,
            )
            if reason
        ]
        return Readiness(ready=not reasons, reasons=tuple(reasons))

    def _kafka_silence(self) -> tuple[str, ...]:
        """Credits go out every second: what is not acknowledged for long tells that nobody is there; a refusal tells it at once."""
        at, healthy = self.announcer.acknowledged_at, self.reader.answered and self.outbox.healthy
        return kafka_silence(at if healthy or at is None else -inf, self._environment.clock.monotonic())

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; raises ConfigurationError when another worker with this node id has started."""
        self.registration.hardware = self._hardware or await self._found_hardware()
        producer, chunk_producer = await self._connect()
        tasks = [asyncio.create_task(part, name=part.__name__) for part in self._parts(producer, chunk_producer)]
        try:
            await self._until_stopped(stop, tasks)
            await self._drain(producer)
        finally:
            await _cancel(tasks)
            await self._close(producer, chunk_producer)
        if self._superseded.is_set():
            raise ConfigurationError(f"another worker with the node id {self.node!r} has started")

    async def _found_hardware(self) -> Hardware:
        if self._settings.backend == "in_process":
            return hardware.found(accelerators=False)
        return await asyncio.to_thread(hardware.found)

    async def _connect(self) -> tuple[Producer, Producer]:
        log_, instance = self._environment.log, self._environment.instance
        await first_look(log_, self._environment.topics, self._environment.clock)
        producer = await log_.producer(client_id=f"{instance}-outcomes")
        chunk_producer = await log_.producer(client_id=f"{instance}-chunks", acks=1)
        await self.watch.start(log_, f"{instance}-watch")
        await self.reader.start(log_, producer, f"{instance}-mailbox")
        await self.registration.refresh()
        return producer, chunk_producer

    def _parts(self, producer: Producer, chunk_producer: Producer) -> list[Coroutine[Any, Any, None]]:
        return [
            self.watch.run(),
            self.reader.run(),
            self.reader.run_commits(),
            self.outbox.run(producer),
            self.chunks.run(chunk_producer),
            self.announcer.run_credits(producer),
            self.announcer.run_node(producer),
            self._renew(),
            self._sweep(),
            self._probe(),
        ]

    async def _until_stopped(self, stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._superseded.wait())]
        try:
            done, _ = await asyncio.wait([*waits, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(waits)
        for task in done:
            task.result()

    # Parts that only beat

    async def _renew(self) -> None:
        while True:
            await self._environment.clock.sleep(self._settings.renew_seconds)
            self.desk.renew()

    async def _sweep(self) -> None:
        while True:
            await self._environment.clock.sleep(self._settings.sweep_seconds)
            self.desk.sweep()

    async def _probe(self) -> None:
        settings = self._settings
        while True:
            seconds = settings.probe_seconds if self.registration.reachable else settings.probe_unreachable_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._probe_now.wait()
                self._probe_now.clear()
                await self._environment.clock.sleep(settings.probe_unreachable_seconds)
            before = self.registration.reachable
            await self.registration.refresh()
            self._node_news.set()
            if before != self.registration.reachable:
                self._places_changed.set()

    # What the parts tell

    def _describe(self, number: int) -> Node:
        return self.registration.record(number, draining=self.desk.closed is not None, pause_seconds=self.desk.pause_seconds())

    def _on_unreachable(self) -> None:
        """A call found nobody at the endpoint: offer nothing, give back what waits, look again soon."""
        self.registration.lost()
        self.desk.give_back_waiting("the model endpoint does not answer")
        self._node_news.set()
        self._places_changed.set()
        self._probe_now.set()

    def _on_own_record(self, node: Node | None) -> None:
        """A later boot of this node id ends this worker; an earlier one that is not quite dead is talked over."""
        if node is not None and (node.boot == self.boot or self.reader.number is None):
            self._known_boots.add(node.boot)
        elif node is None or node.boot in self._known_boots:
            self.announcer.forgotten()
        elif not node.draining:
            log.error("node_id_taken_over", node=self.node, boot=node.boot)
            self._superseded.set()

    # The end

    async def _drain(self, producer: Producer) -> None:
        """Offer nothing, let running calls end or give them back, leave the mailbox empty, and the registry clean."""
        grace = self._environment.settings.grace_seconds
        self.announcer.quiet_since = None
        self.desk.close("the worker is stopping")
        try:
            async with asyncio.timeout(grace * TELLING_SHARE):
                await self._until(lambda: not len(self.desk.leases), grace * DRAIN_SHARE)
                self.desk.release_running("the worker is stopping")
                await self._until(lambda: not len(self.desk.leases) and self._mailbox_is_quiet(), grace)
                await self.outbox.flushed()
                await self._leave(producer)
        except TimeoutError:
            log.warning("drain_incomplete", attempts=len(self.desk.leases))

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        clock = self._environment.clock
        last = clock.monotonic() + seconds
        while not condition() and clock.monotonic() < last:
            await clock.sleep(LOOK_SECONDS)

    def _mailbox_is_quiet(self) -> bool:
        """Routers have had time to hear that no place is left, and nothing came since."""
        if self.reader.number is None:
            return True
        quiet, seconds = self.announcer.quiet_since, self._settings.drain_quiet_seconds
        return quiet is not None and self._environment.clock.monotonic() - max(quiet, self.reader.read_at) >= seconds

    async def _leave(self, producer: Producer) -> None:
        """A tombstone frees the mailbox number; a worker that was replaced under its own id must not write one."""
        if self.reader.number is None or self.watch.registry.boot_of(self.node) != self.boot:
            return
        with contextlib.suppress(LogError):
            await producer.send(Message(self._environment.topics.nodes, None, self.node.encode(), 0))

    async def _close(self, producer: Producer, chunk_producer: Producer) -> None:
        for part in (self.reader, self.watch, self._blobs, producer, chunk_producer, self._backend):
            try:
                await part.close()
            except LogError as error:
                log.warning("close_failed", code=error.code)


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
