"""Administered: what administrators have put into the registry, as this instance has read it, for all that asks for it."""

from __future__ import annotations

import asyncio

from services.ingress.settings import IngressSettings
from services.ingress.status.events_reader import EventsReader
from shared.access import load
from shared.agents.table import Declarations
from shared.contracts import budget, erased, keys, schedule, tasks
from shared.processing.erasing import Erasing
from shared.processing.registry import follow_registry
from shared.processing.tail import Tail
from shared.scheduling.schedule_table import ScheduleTable
from shared.service import Environment

MOST_PINS = 10_000


class Administered:
    """`tail` feeds it; until that has caught up nothing here says that it is complete."""

    def __init__(self, environment: Environment, settings: IngressSettings, events: EventsReader) -> None:
        topics, name = environment.topics, environment.instance
        self.schedules, self.agents = ScheduleTable(topics.settings.capabilities), Declarations()
        self.access = load(settings.keys_file, environment.clock)
        self.erasing = Erasing(environment.clock, events.erase, kept_seconds=settings.status_ttl_seconds)
        self.pins = set[str]()
        """As they stand: `<node>/<model>`."""
        kinds = {
            budget.KIND: events.tenants.limits.on_entry,
            erased.KIND: self.erasing.on_entry,
            keys.KIND: self.access.on_entry,
            schedule.KIND: self.schedules.apply,
            tasks.PIN: self._on_pin,
        }
        self.tail: Tail = follow_registry(
            environment.log,
            environment.clock,
            topics,
            client_id=f"tutti-ingress-registry-{name}",
            service="ingress",
            kinds={**kinds, **self.agents.kinds},
        )
        self.schedules.complete = self.agents.complete = self.access.complete = self.tail.caught_up

    def _on_pin(self, _kind: str, name: str, value: bytes | None) -> None:
        if value is None:
            self.pins.discard(name)
        elif len(self.pins) < MOST_PINS:
            self.pins.add(name)

    async def run(self) -> None:
        """Read, and erase what the entries ask for, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tail.run())
            group.create_task(self.erasing.run())
            group.create_task(self.access.run())
