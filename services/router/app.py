"""The router's process: one loop gives steps to nodes whenever a step or a place has arrived; the rest runs beside it.

intake (steps) ──┐                         ┌─► work.<capability>
                 ├─► wake ─► route ─► give ┤
facts (credits) ─┘                         └─► closings: StepRouted, failures, delays ─► committed

A round's sends overlap with reading, with the closings of the round before, and with nothing else.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from services.router.dispatcher import Dispatcher
from services.router.facts import Facts
from services.router.ledger import CreditLedger
from services.router.messages import Placed
from services.router.placement import Placement
from services.router.presence import Presence
from services.router.registry import NodeRegistry
from services.router.routing import Routing
from services.router.settings import RouterPolicy, RouterSettings
from shared.contracts.base import CLASSES
from shared.kafka.assignor import BalancedAssignor
from shared.processing.intake import Intake
from shared.processing.window import WindowBounds
from shared.service import Environment, Readiness, kafka_silence
from shared.services import group_of
from shared.telemetry import metrics

FETCH_BYTES = 256 * 1024
"""Of one partition in one fetch: a window overshoots its bound by at most this."""
SETTLE_SECONDS = 2.0
"""What is on its way may take this long before partitions are given up."""
DEAF_SECONDS = 3.0
"""Own presence not heard for so long: it is not the nodes that are silent, we do not hear."""
ACQUAINTANCE_SECONDS = 2.0
"""After its start a router judges nobody missing for so long: nodes announce their places every second."""

_WAITING = {c: metrics.STEPS_WAITING.labels(c.value) for c in CLASSES}


def build(environment: Environment, policy: RouterPolicy | None = None) -> Router:
    """The router of one process; `policy` instead of the environment's settings in tests."""
    return Router(environment, policy or RouterSettings().router)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a connected router works with."""

    intake: Intake
    facts: Facts
    presence: Presence
    dispatcher: Dispatcher


class Router:
    """Implements `shared.service.Service`."""

    name = "router"

    def __init__(self, environment: Environment, policy: RouterPolicy) -> None:
        self._env = environment
        self._policy = policy
        self._clock = environment.clock
        self._topics = environment.topics
        self._registry = NodeRegistry(forgotten_seconds=policy.node_forgotten_seconds)
        self._ledger = CreditLedger(
            environment.instance, lost_seconds=policy.node_lost_seconds, forgotten_seconds=policy.node_forgotten_seconds
        )
        self._placement = Placement(self._registry, self._ledger)
        self._routing = Routing(self._placement, policy, self._topics)
        self._wake = asyncio.Event()
        self._parts: _Parts | None = None
        self._judges_from = 0.0

    def asgi(self) -> Any | None:
        return None

    def readiness(self) -> Readiness:
        now = self._clock.monotonic()
        if self._parts is None:
            return Readiness(False, (*kafka_silence(None, now), "the registry of nodes is not read to its end"))
        intake = self._parts.intake
        reasons = (*kafka_silence(intake.polled_at, now), *intake.stopped, *self._routing.tries.undone)
        return Readiness(not reasons, reasons)

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            living = group.create_task(self._live())
            await stop.wait()
            await self._leave()
            living.cancel()

    async def _live(self) -> None:
        """Connect, learn who is there, then read and route until cancelled."""
        async with AsyncExitStack() as stack:
            parts = await self._assemble(stack)
            await parts.facts.catch_up()
            self._judges_from = self._clock.monotonic() + ACQUAINTANCE_SECONDS
            await parts.presence.announce()
            await parts.intake.start(self._topics.all_steps())
            self._parts = parts
            async with asyncio.TaskGroup() as group:
                group.create_task(parts.intake.run())
                group.create_task(parts.facts.run())
                group.create_task(parts.presence.run())
                group.create_task(parts.dispatcher.run())
                group.create_task(self._route(parts))
                group.create_task(self._sweep(parts))
                group.create_task(self._commit(parts.intake))

    async def _assemble(self, stack: AsyncExitStack) -> _Parts:
        log_, name, policy, clock = self._env.log, self._env.instance, self._policy, self._clock
        facts_reader = await log_.consumer(client_id=f"{name}-facts", reset="earliest")
        stack.push_async_callback(facts_reader.close)
        producer = await log_.producer(client_id=name)
        stack.push_async_callback(producer.close)
        steps_reader = await log_.consumer(
            client_id=name,
            group=group_of("router", self._topics.settings.prefix),
            reset="earliest",
            assignor=BalancedAssignor(),
            fetch_max_wait_ms=policy.fetch_max_wait_ms,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        stack.push_async_callback(steps_reader.close)
        dispatcher = Dispatcher(producer, self._topics, self._ledger, policy=policy, clock=clock, closed=self._on_closed)
        return _Parts(
            intake=Intake(
                steps_reader,
                service=self.name,
                bounds=_bounds(policy),
                cap=self._env.settings.dead_letter_cap,
                clock=clock,
                arrived=self._wake.set,
                dropped=self._routing.drop_lost,
                settle=lambda: dispatcher.settle(SETTLE_SECONDS),
            ),
            facts=Facts(facts_reader, self._topics, registry=self._registry, ledger=self._ledger, clock=clock, changed=self._on_facts),
            presence=Presence(producer, self._topics, name, policy=policy, clock=clock, backlog=self._backlog),
            dispatcher=dispatcher,
        )

    async def _route(self, parts: _Parts) -> None:
        """Give away what can be given, whenever a step or a place has arrived."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            with self._routing.tries.chore("routing"):
                await self._round(parts)

    async def _round(self, parts: _Parts) -> None:
        intake, dispatcher = parts.intake, parts.dispatcher
        now = self._clock.monotonic()
        self._take_back(dispatcher.take_back())
        if intake.suspended:
            return
        for refused in self._routing.admit(intake.windows.values(), now):
            dispatcher.refuse(refused)
        placed = self._routing.match(now)
        if placed:
            await dispatcher.give(placed)
        for closing in self._routing.give_up():
            dispatcher.close(closing)
        parts.presence.consider(len(self._routing.waiting))

    def _take_back(self, refused: list[Placed]) -> None:
        """Their mailboxes did not take them: they go to whoever has a place, in their old order."""
        for placed in reversed(refused):
            self._routing.put_back(placed.entry)

    async def _sweep(self, parts: _Parts) -> None:
        """What only time brings: lost nodes, deadlines, steps without a node."""
        while True:
            await self._clock.sleep(self._policy.tick_seconds)
            with self._routing.tries.chore("the sweep"):
                self._sweep_once(parts, self._clock.monotonic())
            self._wake.set()

    def _sweep_once(self, parts: _Parts, now: float) -> None:
        hears = parts.facts.heard_at is not None and now - parts.facts.heard_at < DEAF_SECONDS
        if hears and self._ledger.expire(now):
            self._placement.refresh()
        self._registry.expire(now)
        parts.dispatcher.expire()
        if not parts.intake.suspended:
            judge = hears and now >= self._judges_from
            for closing in self._routing.sweep(now, judge=judge):
                parts.dispatcher.close(closing)
        self._show()

    async def _commit(self, intake: Intake) -> None:
        while True:
            await self._clock.sleep(self._policy.commit_seconds)
            if not intake.suspended:
                await intake.commit()

    async def _leave(self) -> None:
        """Begin nothing more, say goodbye, so that nodes offer their places to others, and let what is on its way arrive."""
        if self._parts is not None:
            self._parts.intake.suspended = True
            await self._parts.presence.announce(leaving=True)
            await self._parts.dispatcher.settle(SETTLE_SECONDS)
            await self._parts.intake.commit()

    def _show(self) -> None:
        metrics.NODES_LIVE.set(len(self._placement.nodes()))
        for priority_class, count in self._routing.waiting.counts().items():
            _WAITING[priority_class].set(count)

    def _backlog(self) -> int:
        windows = self._parts.intake.windows.values() if self._parts else ()
        return len(self._routing.waiting) + sum(window.buffered for window in windows)

    def _on_closed(self) -> None:
        if self._parts is not None:
            self._parts.intake.relieve()
        self._wake.set()

    def _on_facts(self, afresh: bool) -> None:
        if afresh:
            with self._routing.tries.chore("looking at nodes"):
                self._placement.refresh()
        self._wake.set()


def _bounds(policy: RouterPolicy) -> WindowBounds:
    return WindowBounds(open=policy.window, span=policy.window_span, records=policy.buffered_records, bytes=policy.buffered_bytes)
