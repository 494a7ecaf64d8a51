"""Intake under a backlog: tenants take turns, no class fills a home, and a crash in the middle loses and doubles nothing (simulated)."""

from __future__ import annotations

import asyncio

from services.planner.app import Planner
from services.planner.settings import PlannerSettings
from shared.contracts.base import PriorityClass
from shared.contracts.event import JobAccepted
from shared.contracts.result import Result
from tests.support.planner_traces import simulated
from tests.support.planner_world import World

LARGE, SMALL = 300, 10


def _queue(world: World) -> None:
    for number in range(LARGE):
        world.produce(b'{"prompt": "q%d", "tenant": "large"}' % number)
    for number in range(SMALL):
        world.produce(b'{"prompt": "q%d", "tenant": "small"}' % number)


def _ended(world: World, tenant: str) -> int:
    return sum(Result.model_validate_json(values[0]).tenant == tenant for values in world.results().values())


@simulated
async def test_a_small_tenant_does_not_wait_for_a_large_one(world: World) -> None:
    """Ten jobs behind 300 of another tenant end while most of those wait."""
    world.options = PlannerSettings(live_jobs=16)
    world.node.seconds = (1.0, 1.0)
    _queue(world)
    world.start("p")
    await world.until(lambda: _ended(world, "small") == SMALL)
    assert _ended(world, "large") < 60
    await world.until(lambda: world.finished() == LARGE + SMALL)
    world.check_laws(LARGE + SMALL)


@simulated
async def test_a_crash_after_jobs_were_taken_out_of_order(world: World) -> None:
    """The committed position stays before what was not taken; what was taken behind it is known to the successor, and not run again."""
    world.options = PlannerSettings(live_jobs=16)
    world.node.seconds = (1.0, 1.0)
    _queue(world)
    world.start("p")
    await world.until(lambda: _ended(world, "small") == SMALL)
    await asyncio.sleep(2)
    world.kill("p")
    ended_before = _ended(world, "large")
    world.start("q")
    await world.until(lambda: world.finished() == LARGE + SMALL)
    await asyncio.sleep(5)
    world.check_laws(LARGE + SMALL)
    assert ended_before < LARGE
    accepted = [event.source for event in world.history(0) if isinstance(event, JobAccepted)]
    assert len(accepted) == len(set(accepted)) == LARGE + SMALL
    small = {event.job for event in world.history(0) if isinstance(event, JobAccepted) and event.request.tenant == "small"}
    assert len([step for step in world.steps_seen if step.job in small]) == SMALL


@simulated
async def test_an_interactive_job_is_taken_while_batch_fills_the_home(world: World) -> None:
    """Batch jobs hold all live jobs that they may, for an hour: an interactive one is asked at once."""
    world.options = PlannerSettings(live_jobs=16, deadline_batch_seconds=1e6)
    world.node.seconds = (0.5, 0.5)
    world.node.silent = 1.0
    for number in range(100):
        world.produce(b'{"prompt": "q%d"}' % number, priority_class=PriorityClass.BATCH)
    world.start("p")
    await world.until(lambda: len(world.steps_seen) == 12)
    world.node.silent = 0.0
    world.produce(b'{"prompt": "urgent"}', priority_class=PriorityClass.INTERACTIVE)
    began = world.clock.monotonic()
    await world.until(lambda: world.finished() >= 1)
    assert world.clock.monotonic() - began < 2.0
    assert [Result.model_validate_json(values[0]).priority_class for values in world.results().values()] == [PriorityClass.INTERACTIVE]


@simulated
async def test_a_tenant_that_fills_the_home_hides_nobody(world: World) -> None:
    """Its jobs hold what it may have, for an hour: another tenant's job is asked at once, and answered."""
    world.options = PlannerSettings(live_jobs=40)
    world.node.seconds = (0.5, 0.5)
    world.node.silent = 1.0
    for number in range(LARGE):
        world.produce(b'{"prompt": "q%d", "tenant": "large"}' % number)
    world.start("p")
    await world.until(lambda: len(world.steps_seen) >= 25)
    await asyncio.sleep(1)
    world.node.silent = 0.0
    world.produce(b'{"prompt": "q", "tenant": "small"}')
    began = world.clock.monotonic()
    await world.until(lambda: _ended(world, "small") == 1)
    assert world.clock.monotonic() - began < 2.0
    assert _ended(world, "large") == 0


@simulated
async def test_large_jobs_count_as_several(world: World) -> None:
    """Of the 30 places of a class six go to each job of 21 kB; a successor counts alike, and all are free in the end."""
    world.options = PlannerSettings(live_jobs=40, live_job_bytes=4_096)
    world.node.seconds = (60.0, 60.0)
    for _ in range(SMALL):
        world.produce(b'{"prompt": "%b"}' % (b"x" * 21_500))
    assert await _live(world.start("p")) == 5
    world.kill("p")
    successor = world.start("q")
    assert await _live(successor) == 5
    await world.until(lambda: world.finished() == SMALL)
    assert set(successor.homes.owned[0].home._book.live_count.of_class.values()) == {0}


async def _live(planner: Planner) -> int:
    """Jobs that home 0 holds, a while after its start."""
    await asyncio.sleep(15)
    return planner.homes.owned[0].home.live
