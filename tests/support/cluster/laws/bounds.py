"""Everything is bounded: looked at every half second while the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from services.delay.app import Delay
from services.delay.settings import DelaySettings
from services.planner.app import Planner
from services.planner.settings import PlannerSettings
from services.router.app import Router
from services.router.settings import RouterSettings
from services.worker.app import WorkerService
from tests.support.cluster import settings
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "everything is bounded"
LOOK_SECONDS = 0.25
HOPS = 40
"""Most records in delays.* for one job or attempt: hops through the tiers, and what faults add."""
INBOX = 4
"""Times a worker's places that steps may wait in it: what it offered, and what faults brought besides. Far below a burst of all jobs."""


async def watch(world: World) -> None:
    """Until cancelled; what it finds is in `history.violations`."""
    bounds = settings.planner(world.mix), settings.router(world.mix), settings.delay(world.mix)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        world.history.violations += look(world, *bounds)


def look(world: World, options: PlannerSettings, policy: RouterSettings, delays: DelaySettings) -> Iterator[Violation]:
    """One look at every living instance. Bounds are given: to read settings costs more than to simulate a quarter of a second."""
    for name, planner in world.services(Planner).items():
        for number, owned in planner.homes.owned.items():
            if owned.home.live > options.live_jobs + options.round_jobs:
                yield Violation(LAW, f"{name} has {owned.home.live} live jobs in home {number}; {options.live_jobs} are allowed")
    for name, worker in world.services(WorkerService).items():
        slots, places = settings.SLOTS[name], settings.SLOTS[name] + settings.PREFETCH
        if worker.attempts.slots.busy > slots:
            yield Violation(LAW, f"{name} runs {worker.attempts.slots.busy} steps in {slots} slots")
        if len(worker.attempts.inbox) > INBOX * places:
            yield Violation(LAW, f"{len(worker.attempts.inbox)} steps wait in {name}; it has {places} places")
    for name, router in world.services(Router).items():
        windows = router.intake.windows
        for where, window in windows.items():
            if window.buffered > policy.buffered_records + _FETCH:
                yield Violation(LAW, f"{name} has read {window.buffered} records ahead of {where.topic}/{where.partition}")
        if len(router.routing.waiting) > policy.window * max(1, len(windows)):
            yield Violation(LAW, f"{len(router.routing.waiting)} steps wait in {name}")
    for name, delay in world.services(Delay).items():
        most = delays.held_records * max(1, len(delay.intake.windows))
        if len(delay.held) > most:
            yield Violation(LAW, f"{name} holds {len(delay.held)} records; {most} are allowed")


_FETCH = 1_000


def check(world: World) -> Iterator[Violation]:
    """Nothing goes round in circles, whatever the clocks say. Where batches are doubled, what waits long doubles at each hop: then the
    moments count, not the copies.
    """
    for value, records in world.history.delays_by_value.items():
        hops = len({record.at for record in records} if world.mix.duplicated else records)
        if hops > HOPS:
            yield Violation(LAW, f"a record of {len(value)} bytes went through delays.* {hops} times")
