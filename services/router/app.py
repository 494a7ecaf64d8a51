"""The router's process: reads steps, follows nodes and credits, announces itself, and gives steps to nodes in rounds (`rounds`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

from services.router.dispatcher import Dispatcher
from services.router.presence import Presence
from services.router.rounds import Rounds
from services.router.routing import Routing
from services.router.settings import RouterSettings
from services.router.wake_calls import LOOK_SECONDS, WakeCalls
from shared.placement.choosing import Placement
from shared.placement.facts import Facts
from shared.placement.ledger import CreditLedger
from shared.processing.intake import Intake
from shared.processing.node_table import NodeTable
from shared.processing.outbox import Outbox
from shared.processing.window import WindowBounds
from shared.service import Environment, kafka_silence
from shared.service.processor import Processor, every
from shared.services import group_of


def build(environment: Environment, settings: RouterSettings | None = None) -> Router:
    """The router of one process; settings come from its environment unless given."""
    return Router(environment, settings or RouterSettings())


class Router:
    """Implements `shared.service.Service`."""

    name = "router"

    def __init__(self, environment: Environment, settings: RouterSettings) -> None:
        self._env, self._settings = environment, settings
        clock, topics, wake = environment.clock, environment.topics, asyncio.Event()
        ledger = CreditLedger(
            environment.instance, lost_seconds=settings.node_lost_seconds, forgotten_seconds=settings.node_forgotten_seconds
        )
        placement = self._placement = Placement(NodeTable(settings.node_forgotten_seconds), ledger, settings.policy)
        self.routing = Routing(placement, settings, topics)
        self._outbox = Outbox(clock, self.name, topics)
        dispatcher = Dispatcher(
            self._outbox,
            topics,
            ledger,
            settings=settings,
            clock=clock,
            closed=wake.set,
            leaving=lambda: self.intake.suspended,
        )
        self.intake = Intake(
            self._outbox,
            service=self.name,
            bounds=WindowBounds(settings.window, settings.window_span, settings.buffered_records, settings.buffered_bytes),
            cap=environment.settings.dead_letter_cap,
            clock=clock,
            arrived=wake.set,
            leaving=partial(dispatcher.tell, all_=True),
            dropped=self.routing.drop_lost,
        )
        self._rounds = Rounds(self.intake, self.routing, placement, dispatcher, clock=clock, wake=wake)
        self._processor = Processor(self._connect, reasons=self._reasons, drain=self._drain)
        self.run, self.readiness = self._processor.run, self._processor.readiness

    async def _connect(self) -> None:
        """Learn who is there, say that one is here, then read."""
        env, settings, processor, rounds = self._env, self._settings, self._processor, self._rounds
        log, topics, clock, name = env.log, env.topics, env.clock, env.instance
        producer = await processor.open(log.producer(client_id=name))
        changed = rounds.on_facts
        facts = Facts(log, topics, self._placement, service=self.name, client_id=f"{name}-facts", clock=clock, changed=changed)
        self._presence = Presence(producer, topics, name, settings=settings, clock=clock, backlog=rounds.backlog)
        processor.waits_for = "the registry of nodes is not read to its end"
        processor.spawn(facts.tail.run())
        await facts.tail.read_to()
        rounds.begin()
        await self._presence.announce()
        group = group_of(self.name, topics.settings.prefix)
        intake = await processor.open(self.intake.join(log, group, name, topics.all_steps()))
        processor.spawn(
            intake.run(),
            intake.run_commits(settings.commit_seconds),
            self._presence.run(),
            self._outbox.run(producer),
            rounds.run(self._presence),
            every(clock, settings.tick_seconds, lambda: rounds.sweep(facts)),
            every(clock, LOOK_SECONDS, WakeCalls(self._placement, self.routing, settings.wake, clock).look),
        )

    def _reasons(self) -> Iterator[str]:
        yield from kafka_silence(self.intake.polled_at, self._env.clock.monotonic())
        yield from self.intake.stopped
        yield from self.routing.tries.undone

    async def _drain(self) -> None:
        """Begin nothing more, say goodbye, so that nodes offer their places to others, and let what is on its way arrive."""
        self.intake.suspended = True
        await self._presence.announce(leaving=True)
        await self.intake.drain()
