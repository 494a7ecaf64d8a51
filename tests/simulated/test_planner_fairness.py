"""Intake under a backlog: tenants take turns, no class fills a home, and a crash in the middle loses and doubles nothing (simulated)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.lab.virtual_loop import run, within
from services.planner.app import Planner
from services.planner.settings import PlannerSettings
from services.planner.state.taken import unpacked
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.event import JobAccepted
from shared.contracts.result import Result, Status
from shared.contracts.taken import TakenAhead
from shared.errors import LogUnavailable
from shared.kafka.port import NewTopic, TopicPartition
from tests.support.planner_traces import events, simulated
from tests.support.planner_world import World

LARGE, SMALL = 300, 10
HOMES = 6


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
    await world.check_laws(LARGE + SMALL)


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
    await world.check_laws(LARGE + SMALL)
    assert ended_before < LARGE
    accepted = [event.source for event in world.history(0) if isinstance(event, JobAccepted)]
    assert len(accepted) == len(set(accepted)) == LARGE + SMALL
    small = {event.job for event in world.history(0) if isinstance(event, JobAccepted) and event.request.tenant == "small"}
    assert len([step for step in world.node.steps_seen if step.job in small]) == SMALL


@simulated
async def test_an_interactive_job_is_taken_while_batch_fills_the_home(world: World) -> None:
    """Batch jobs hold all live jobs that they may, for an hour: an interactive one is asked at once."""
    world.options = PlannerSettings(live_jobs=16, deadline_batch_seconds=1e6)
    world.node.seconds = (0.5, 0.5)
    world.node.silent = 1.0
    for number in range(100):
        world.produce(b'{"prompt": "q%d"}' % number, priority_class=PriorityClass.BATCH)
    world.start("p")
    await world.until(lambda: len(world.node.steps_seen) == 12)
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
    await world.until(lambda: len(world.node.steps_seen) >= 25)
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


@pytest.mark.parametrize("backlog", [400, 4_000])
def test_another_tenants_first_job_is_taken_behind_any_backlog(backlog: int) -> None:
    """Law 5: within a bound, whatever lies before it, also when it comes after all that; and no other tenant is overtaken by it."""

    async def body() -> None:
        async with World(7, homes=1, options=PlannerSettings(live_jobs=16, queue_records=50)) as world:
            world.node.seconds = (1.0, 1.0)
            for number in range(backlog):
                world.produce(b'{"prompt": "q%d", "tenant": "large"}' % number)
            world.produce(b'{"prompt": "q", "tenant": "small"}')
            world.start("p")
            await world.until(lambda: _ended(world, "small") == 1, 12.0)
            world.produce(b'{"prompt": "q", "tenant": "late"}')
            await world.until(lambda: _ended(world, "late") == 1, 6.0)
            assert 0 < _ended(world, "large") < 60

    run(body())


def test_over_a_backlog_longer_than_the_window_tenants_get_the_same() -> None:
    """Ten tenants with 1:2:...:10 jobs, well mixed, of which the window sees a few: Jain's index until the smallest has a fifth left."""

    async def body() -> None:
        async with World(7, homes=1, options=PlannerSettings(live_jobs=64, queue_records=200)) as world:
            world.node.seconds = (1.0, 1.0)
            queue = [tenant for tenant in range(1, 11) for _ in range(tenant * 50)]
            world.random.shuffle(queue)
            for number, tenant in enumerate(queue):
                world.produce(b'{"tenant":"t%d","prompt":"q%d"}' % (tenant, number))
            world.start("p")
            await world.until(lambda: _ended(world, "t1") >= 40)
            got = [_ended(world, f"t{tenant}") for tenant in range(1, 11)]
            assert sum(got) ** 2 / (10 * sum(one * one for one in got)) > 0.95, got
            await world.until(lambda: world.finished() == len(queue))
            await world.check_laws(len(queue))

    run(body())


def test_a_tenant_whose_records_lie_anywhere_gets_as_much_as_one_whose_ids_are_keys() -> None:
    """Six homes. All but one in six of its records are only sent on: that is no turn. Of three tenants alike two have keys or no ids."""

    async def body() -> None:
        async with World(7, homes=HOMES, options=PlannerSettings(live_jobs=24, queue_records=200)) as world:
            world.node.seconds = (0.1, 0.1)
            for number in range(600):
                lies = world.random.randrange(HOMES)
                for tenant in ("keyed", "anywhere"):
                    job = f"{tenant}-{number}"
                    home = ids.home_of(job, HOMES) if tenant == "keyed" else lies
                    world.produce(b'{"id":"%b","tenant":"%b","prompt":"q"}' % (job.encode(), tenant.encode()), home=home)
                world.produce(b'{"tenant":"without","prompt":"q"}', home=lies)
            world.start("p")
            await world.until(lambda: world.finished() >= 900)
            got = {tenant: _ended(world, tenant) for tenant in ("keyed", "anywhere", "without")}
            assert min(got.values()) > 0.75 * max(got.values()), got
            assert len(world.values(world.topics.jobs(PriorityClass.STANDARD))) > 2_000, "many were sent on"
            await world.until(lambda: world.finished() == 1_800)
            await world.check_laws(1_800)

    run(body())


AHEAD = PlannerSettings(live_jobs=16, queue_records=50, snapshot_distance=40)
"""History is kept short: a bitmap is written as soon as ten events lie behind what ended."""


async def _small_ones_end_early(world: World, large: int, small: int) -> None:
    """Behind many jobs of a large tenant those of a small one end, and the watermark has passed them."""
    world.node.seconds = (1.0, 1.0)
    for number in range(large):
        world.produce(b'{"prompt": "q%d", "tenant": "large"}' % number)
    for number in range(small):
        world.produce(b'{"prompt": "q%d", "tenant": "small"}' % number)
    world.start("p")
    await world.until(lambda: _ended(world, "small") == small)
    await asyncio.sleep(8)
    kept = next(event for event in reversed(world.history(0)) if isinstance(event, TakenAhead))
    jobs = TopicPartition(world.topics.jobs(PriorityClass.STANDARD), 0)
    assert kept.base < large
    assert unpacked(kept.bits).bit_length() + kept.base == large + small
    accepted = [event for event in world.history(0) if isinstance(event, JobAccepted) and event.request.tenant == "small"]
    assert world.log.group("tutti-planner").offsets[jobs] < large
    watermark = world.log.group("tutti-planner").offsets[events(world)]
    values = world.values(world.topics.job_events, 0)
    assert any(event.job.encode() in value for event in accepted for value in values[:watermark])


@within(lambda: World(7, homes=1, options=AHEAD))
async def test_a_successor_knows_what_was_taken_ahead_by_the_bitmap(world: World) -> None:
    """Though the jobs are in nothing that it replays, and again after its own end: no record is accepted twice, none is lost."""
    await _small_ones_end_early(world, 500, 20)
    for name in ("p", "q", "r"):
        world.kill(name)
        world.start(chr(ord(name) + 1))
        await asyncio.sleep(20)
    await world.until(lambda: world.finished() == 520)
    await asyncio.sleep(5)
    await world.check_laws(520)
    sources = [event.source for event in world.history(0) if isinstance(event, JobAccepted)]
    assert len(sources) == len(set(sources)) == 520


@within(lambda: World(7, homes=1, options=AHEAD))
async def test_what_lies_below_the_newest_bitmaps_base_counts_as_taken(world: World) -> None:
    """The watermark has passed jobs by one bitmap; the next one, written before its base is committed, need not name them any more."""
    world.node.seconds = (1.0, 1.0)
    for number, tenant in enumerate((["large"] * 200 + ["small"] * 20) * 2):
        world.produce(b'{"prompt": "q%d", "tenant": "%b"}' % (number, tenant.encode()))
    planner = world.start("p")
    await world.until(lambda: _ended(world, "small") == 40)
    await asyncio.sleep(5)

    async def fails(_: object) -> None:
        raise LogUnavailable

    consumer: Any = planner.homes.consumer
    consumer.commit = fails
    world.node.seconds = (0.0, 0.1)
    await world.until(lambda: any(isinstance(event, TakenAhead) and event.base > 230 for event in world.history(0)))
    world.kill("p")
    world.start("q")
    await world.until(lambda: world.finished() == 440)
    await asyncio.sleep(5)
    sources = [event.source for event in world.history(0) if isinstance(event, JobAccepted)]
    assert len(sources) == len(set(sources)) == 440


@within(lambda: World(7, homes=1, options=AHEAD))
async def test_a_bitmap_of_a_topic_that_was_made_anew_says_nothing(world: World) -> None:
    """While nobody reads: the new topic has records at the same offsets, and each of them is a job."""
    await _small_ones_end_early(world, 300, 20)
    world.kill("p")
    name = world.topics.jobs(PriorityClass.STANDARD)
    was = world.log.topics[name]
    world.log.delete([name])
    world.log.create([NewTopic(name, was.partitions, 1, was.config)])
    for number in range(320):
        world.produce(b'{"prompt": "n%d", "tenant": "new"}' % number)
    world.node.seconds = (0.0, 0.1)
    before = world.finished()
    world.start("q")
    await world.until(lambda: world.finished() - before >= 320)
    await world.until(lambda: _ended(world, "new") == 320, 10.0)


@within(lambda: World(7, homes=1, options=AHEAD.model_copy(update={"live_jobs": 40})))
async def test_a_cancel_behind_a_backlog_stops_a_job_that_was_taken_ahead(world: World) -> None:
    """And its job that nobody has read yet never runs; of one that never comes its sender is told, after all before it is taken."""
    world.node.seconds = (1.0, 1.0)
    for number in range(300):
        world.produce(b'{"prompt": "q%d", "tenant": "large"}' % number)
    for job in ("runs", "waits"):
        world.produce(b'{"prompt": "q", "id": "%b", "tenant": "%b"}' % (job.encode(), b"small" if job == "runs" else b"large"))
    world.node.silent = 1.0
    world.start("p")
    await world.until(lambda: any(step.job == "small/runs" for step in world.node.steps_seen), 10.0)
    for key in (b"small/runs", b"large/waits", b"large/never"):
        world.produce(b"", key=key, headers_=[("type", b"cancel")])
    await world.until(lambda: "small/runs" in world.results(), 10.0)
    assert not world.values(world.topics.dead_letters)
    world.node.silent, world.node.seconds = 0.0, (0.0, 0.1)
    world.kill("p")
    world.start("q")
    await world.until(lambda: world.finished() == 302)
    await asyncio.sleep(10)
    assert {job: Result.model_validate_json(world.results()[job][0]).status for job in ("small/runs", "large/waits")} == {
        "small/runs": Status.CANCELLED,
        "large/waits": Status.CANCELLED,
    }
    assert not any(step.job == "large/waits" for step in world.node.steps_seen)
    [letter] = world.values(world.topics.dead_letters)
    assert b"unknown_job" in letter


async def _live(planner: Planner) -> int:
    """Jobs that home 0 holds, a while after its start."""
    await asyncio.sleep(15)
    return planner.homes.owned[0].home.live
