"""Storms: what befalls planners in simulated runs, drawn from the world's seed. Phase 1 of a run; `heal` begins phase 2."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.planner.settings import PlannerSettings
from tests.support.planner_world import World


def quick_options(unit: float) -> PlannerSettings:
    """Short timeouts, so that they fire within a run; sometimes tiny bounds. `unit`: a random number from 0 to 1."""
    return PlannerSettings(
        lease_seconds=3,
        claim_timeout_seconds=2,
        resend_seconds=5,
        backoff_base_seconds=0.1,
        backoff_cap_seconds=1,
        attempts=20,
        live_jobs=4 if unit < 0.3 else 2_000,
        queue_records=8 if unit < 0.3 else 1_000,
        snapshot_distance=10 if unit < 0.5 else 20_000,
        deadline_standard_seconds=100_000,
        deadline_interactive_seconds=100_000,
    )


def draw_faults(world: World) -> None:
    """Of sends, deliveries, calls and the node; each with a probability of its own, or not at all."""
    random, faults, node = world.random, world.log.faults, world.node
    maybe = lambda p: p if random.random() < 0.5 else 0.0
    faults.send_seconds = (0.0, maybe(0.5))
    faults.ack_seconds = (0.0, maybe(0.5))
    faults.delivery_seconds = (0.0, maybe(1.0))
    faults.call_seconds = (0.0, maybe(0.3))
    faults.lost = maybe(0.02)
    faults.unacknowledged = maybe(0.02)
    faults.offset_unknown = maybe(0.02)
    node.silent = maybe(0.1)
    node.fails = maybe(0.2)
    node.runs_twice = maybe(0.3)
    node.repeats_outcome = maybe(0.3)
    node.seconds = (0.0, 1.0)


def heal(world: World) -> None:
    """No fault from now on."""
    world.log.faults.heal()
    world.node.silent = world.node.fails = world.node.runs_twice = world.node.repeats_outcome = 0.0


async def storm(world: World, planners: Sequence[str]) -> None:
    """Kills, restarts, pauses and wakes planners; the cluster itself goes away for a while."""
    random = world.random
    for _ in range(random.randint(1, 6)):
        await asyncio.sleep(random.uniform(0.0, 6.0))
        name = random.choice(planners)
        await befall(world, random.choice(("kill", "freeze", "away", "stop")), name)


async def befall(world: World, fault: str, planner: str, *, away_seconds: float = 20.0) -> None:
    """One fault of this planner, or (away) of the cluster, and its end. `away_seconds`: the longest."""
    random = world.random
    match fault:
        case "kill":
            world.kill(planner)
            await asyncio.sleep(random.uniform(0.0, 15.0))
            world.start(planner)
        case "freeze":
            world.log.freeze(planner)
            await asyncio.sleep(random.uniform(0.0, 25.0))
            world.log.thaw(planner)
        case "away":
            world.log.go_away(random.choice(("waits", "fails")))
            await asyncio.sleep(random.uniform(0.0, away_seconds))
            world.log.come_back()
        case "stop":
            try:
                await asyncio.wait_for(world.stop(planner), 60)
            finally:
                world.start(planner)
        case _:
            raise AssertionError(fault)
