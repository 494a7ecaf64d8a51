"""Rounds: steps are given to nodes whenever a step or a place has arrived; what only time brings is looked for beside that.

intake (steps) ──┐                         ┌─► work.<model>
                 ├─► wake ─► admit, match ─┤
facts (credits) ─┘                         └─► closings: StepRouted, failures, delays ─► committed

A round's sends overlap with reading, with the closings of the round before, and with nothing else.
"""

from __future__ import annotations

import asyncio

from services.router.dispatcher import Dispatcher
from services.router.presence import Presence
from services.router.routing import Routing
from shared.clock import Clock
from shared.placement.choosing import Placement
from shared.placement.facts import Facts
from shared.processing.intake import Intake
from shared.telemetry import metrics

ACQUAINTANCE_SECONDS = 2.0
"""After its start a router judges nobody missing for so long: nodes announce their places every second."""


class Rounds:
    """`wake`: set when a step or a place has arrived, or a closing is acknowledged."""

    def __init__(
        self, intake: Intake, routing: Routing, placement: Placement, dispatcher: Dispatcher, *, clock: Clock, wake: asyncio.Event
    ) -> None:
        self._intake, self._routing, self._placement, self._dispatcher = intake, routing, placement, dispatcher
        self._clock, self._wake = clock, wake
        self._judges_from = 0.0

    def begin(self) -> None:
        """The nodes that there are have been read."""
        self._judges_from = self._clock.monotonic() + ACQUAINTANCE_SECONDS

    def backlog(self) -> int:
        """Steps that wait for places, and those behind them; what has come this moment may find one."""
        waiting = len(self._routing.waiting)
        return waiting + sum(window.buffered for window in self._intake.windows.values()) if waiting else 0

    def on_facts(self, afresh: bool) -> None:
        """Something was told of the nodes; `afresh`: one came, went or is another."""
        if afresh:
            with self._routing.tries.chore("looking at nodes"):
                self._placement.refresh()
        self._wake.set()

    async def run(self, presence: Presence) -> None:
        """Give away what can be given, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            with self._routing.tries.chore("telling homes"):
                self._dispatcher.tell()
            self._intake.relieve()
            with self._routing.tries.chore("routing"):
                await self._round(presence)

    async def _round(self, presence: Presence) -> None:
        routing, dispatcher = self._routing, self._dispatcher
        for placed in reversed(dispatcher.take_back()):  # no mailbox took them: they go to whoever has a place, in their old order
            routing.put_back(placed.entry)
        if self._intake.suspended:
            return
        now = self._clock.monotonic()
        for refused in routing.admit(self._intake.windows.values(), now):
            self._intake.refuse(*refused)
        placed_now = routing.match(now)
        if placed_now:
            await dispatcher.give(placed_now)
        for closing in routing.give_up():
            dispatcher.close(closing)
        presence.consider(len(routing.waiting))

    def sweep(self, facts: Facts) -> None:
        """What only time brings: lost nodes, deadlines, steps without a node."""
        with self._routing.tries.chore("the sweep"):
            self._sweep(facts, self._clock.monotonic())
        self._wake.set()

    def _sweep(self, facts: Facts, now: float) -> None:
        placement, routing = self._placement, self._routing
        hears = facts.hears(now)
        if hears and placement.ledger.expire(now):
            placement.refresh()
        placement.table.expire(now)
        self._dispatcher.expire()
        if not self._intake.suspended:
            for closing in routing.sweep(now, judge=hears and now >= self._judges_from):
                self._dispatcher.close(closing)
        metrics.NODES_LIVE.set(len(placement.nodes()))
        routing.show()
