"""Routers of the fleet: the real `Routing` with its windows, ledger and node table, fed by records of virtual topics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from infra.lab.fleet.timeline import Timeline
from services.router.messages import Placed
from services.router.routing import Routing
from services.router.settings import RouterSettings
from shared.contracts.base import PriorityClass
from shared.contracts.credits import Credits
from shared.contracts.node import Node
from shared.contracts.step import Step
from shared.kafka.port import Headers, TopicPartition
from shared.placement.choosing import Placement
from shared.placement.ledger import CreditLedger
from shared.processing.node_table import NodeTable
from shared.processing.window import Window, WindowBounds
from shared.topics import Topics

SWEEP_SECONDS, PRESENCE_SECONDS, PRESENCE_MIN_SECONDS = 0.25, 1.0, 0.05
ACK_SECONDS = 0.002
"""From writing into a mailbox to the broker's acknowledgement."""


@dataclass(frozen=True, slots=True)
class Written:
    """Satisfies `shared.kafka.port.Record`."""

    topic: str
    offset: int
    value: bytes
    partition: int = 0
    timestamp: int = 0
    key: bytes | None = None
    headers: Headers = ()


class Router:
    """`deliver(placed, acknowledged)`: a step is on its way to its node; the offset it got is to be told."""

    def __init__(
        self,
        name: str,
        topics: Topics,
        timeline: Timeline,
        *,
        settings: RouterSettings,
        deliver: Callable[[Router, Placed], int],
        presence: Callable[[str, int], None],
    ) -> None:
        self.name, self._timeline, self._deliver, self._presence = name, timeline, deliver, presence
        forgotten = settings.node_forgotten_seconds
        ledger = CreditLedger(name, lost_seconds=settings.node_lost_seconds, forgotten_seconds=forgotten)
        self.placement = Placement(NodeTable(forgotten), ledger, settings.policy)
        self.routing = Routing(self.placement, settings, topics)
        bounds = WindowBounds(settings.window, settings.window_span, 10**9, 10**12)
        self._windows = {c: Window(TopicPartition(topics.steps("chat", c), 0), bounds, 0) for c in PriorityClass}
        self._planned = self._announcing = False
        self._announced, self._announced_at = 0, -1.0
        self.there = True

    def read(self, step: Step) -> None:
        """A record of its partition has come."""
        window = self._windows[step.priority_class]
        window.receive([Written(window.partition.topic, window.next_offset, step.to_bytes())])
        self.wake()

    def on_node(self, node: Node) -> None:
        self.placement.table.on_node(node, self._timeline.now)
        self.wake()

    def on_credits(self, record: Credits) -> None:
        if self.placement.ledger.on_credits(record, self._timeline.now):
            self.placement.refresh()
        self.wake()

    def wake(self) -> None:
        """A round, when everything of this instant has come."""
        if not self._planned and self.there:
            self._planned = True
            self._timeline.after(0.0, self._round)

    def _round(self) -> None:
        self._planned = False
        now, routing = self._timeline.now, self.routing
        assert not routing.admit(self._windows.values(), now)
        for placed in routing.match(now):
            offset = self._deliver(self, placed)
            self._timeline.after(ACK_SECONDS, partial(self._acknowledged, placed, offset))
        waiting = len(routing.waiting)
        if waiting > 2 * self._announced or (self._announced and not waiting):
            self._announce_soon()

    def _announce_soon(self) -> None:
        """As `services.router.presence` does."""
        if not self._announcing:
            self._announcing = True
            self._timeline.after(max(0.0, self._announced_at + PRESENCE_MIN_SECONDS - self._timeline.now), self._announce)

    def _announce(self) -> None:
        self._announcing, self._announced_at = False, self._timeline.now
        self._announced = len(self.routing.waiting)
        self._presence(self.name, self._announced)

    def beat(self) -> None:
        """Each second."""
        self._announce()
        self._timeline.after(PRESENCE_SECONDS, self.beat)

    def _acknowledged(self, placed: Placed, offset: int) -> None:
        self.placement.ledger.acknowledged(placed.dispatch, offset)
        placed.entry.finish()

    def sweep(self) -> None:
        """Each tick, for ever."""
        if self.there:
            if self.placement.ledger.expire(self._timeline.now):
                self.placement.refresh()
            self.routing.sweep(self._timeline.now, judge=False)
            self.wake()
        self._timeline.after(SWEEP_SECONDS, self.sweep)
