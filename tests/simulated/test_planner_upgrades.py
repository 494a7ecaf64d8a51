"""Upgrade safety: a newer planner's history is left to a newer planner; newer outcomes are refused one by one, up to the cap."""

from __future__ import annotations

import asyncio

import pytest

from services.planner.app import Planner
from services.planner.history import takeover
from shared.contracts.base import VERSION
from shared.contracts.event import PlannerStarted, StepAnswered, StepAsked
from shared.contracts.versions import NEWEST
from shared.kafka.port import Message, TopicPartition
from tests.support.planner_traces import events, settled, simulated
from tests.support.planner_world import World


def newer(than: int) -> tuple[tuple[str, bytes], ...]:
    return ("type", b"something_new"), ("version", b"%d" % (than + 1))


def left_alone(planner: Planner) -> bool:
    return any("newest known here" in reason for reason in planner.readiness().reasons)


def write(world: World, topic: str, value: bytes) -> None:
    head = newer(NEWEST if topic == world.topics.job_events else VERSION)
    world.log.write(TopicPartition(topic, 0), [Message(topic, value, b"j", 0, head)])


@simulated
async def test_newer_history_is_left_alone(world: World) -> None:
    """An old planner that finds a newer one's events neither folds nor appends; its inputs stay uncommitted for the newer one."""
    planner = world.start("p")
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    started = PlannerStarted(nonce="n", planner="newer", version=NEWEST + 1).to_bytes()
    write(world, world.topics.job_events, started)
    write(world, world.topics.job_events, b'{"type":"something_new"}')
    end = len(world.values(world.topics.job_events))
    world.produce(b'{"prompt": "b"}')
    await world.until(lambda: left_alone(planner))
    await asyncio.sleep(30)
    # Its one append went into the gap, fenced; then its own PlannerStarted, by which it learnt what it cannot read.
    mine = world.values(world.topics.job_events)[end:]
    assert sum(b'"planner_started"' in value for value in mine) == 1
    assert b'"planner_started"' in mine[-1]
    assert not world.values(world.topics.dead_letters)
    assert world.finished() == 1
    jobs = TopicPartition(world.topics.all_jobs()[1], 0)
    offsets = world.log.group(world.topics.settings.prefix + "tutti-planner").offsets
    assert offsets.get(events(world), 0) <= end
    assert offsets.get(jobs, 0) <= 1


@simulated
async def test_an_acceptance_with_its_asks_is_left_alone_by_who_would_not_see_them(world: World) -> None:
    """The older planner would ask again, from the first attempt; it writes nothing, and the next newer one goes on."""
    world.node.silent = 1.0
    world.start("new")
    world.produce(b'{"prompt": "a"}')
    await world.until(lambda: len(world.node.steps_seen) == 1)
    world.kill("new")
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(takeover, "NEWEST", 1)
        older = world.start("older")
        await world.until(lambda: left_alone(older))
        await asyncio.sleep(30)
    world.kill("older")
    world.node.silent = 0.0
    world.start("new")
    await settled(world)
    facts = world.history(0)
    assert [type(fact) for fact in facts if isinstance(fact, StepAsked | StepAnswered)] == [StepAsked, StepAnswered]


@simulated
async def test_a_newer_outcome_is_a_dead_letter(world: World) -> None:
    """Anybody may write there: one record stops no partition. Its step is asked for again when its lease ends."""
    planner = world.start("p")
    await world.until(lambda: planner.readiness().ready)
    write(world, world.topics.outcomes, b'{"type":"something_new"}')
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    assert planner.readiness().ready
    [letter] = world.values(world.topics.dead_letters)
    assert b"newest known here" in letter


@simulated
async def test_workers_upgraded_before_planners_stop_the_partition(world: World) -> None:
    """Most outcomes are newer: the cap on dead letters leaves the rest in Kafka, for a newer planner."""
    planner = world.start("p")
    await world.until(lambda: planner.readiness().ready)
    for _ in range(300):
        write(world, world.topics.outcomes, b'{"type":"something_new"}')
    await world.until(lambda: any("were dead-lettered" in reason for reason in planner.readiness().reasons))
    assert len(world.values(world.topics.dead_letters)) <= 200


@simulated
async def test_a_flood_of_unreadable_outcomes_stops_the_partition(world: World) -> None:
    """What cannot be read is a dead letter, up to the cap; then the partition waits for a person, and says so."""
    planner = world.start("p")
    await world.until(lambda: planner.readiness().ready)
    for _ in range(300):
        world.log.write(TopicPartition(world.topics.outcomes, 0), [Message(world.topics.outcomes, b"nonsense", b"j", 0)])
    await world.until(lambda: any("were dead-lettered" in reason for reason in planner.readiness().reasons))
    await asyncio.sleep(5)
    assert len(world.values(world.topics.dead_letters)) < 300
    offsets = world.log.group(world.topics.settings.prefix + "tutti-planner").offsets
    assert offsets.get(TopicPartition(world.topics.outcomes, 0), 0) < 300


@simulated
async def test_a_newer_record_that_no_start_precedes_is_nobodys(world: World) -> None:
    """Whoever may write to `job-events` would else stop a partition by one record, for those that own it and those that take it over."""
    planner = world.start("p")
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    for value in (b"{}", b'{"epoch":7777,"type":"something_new"}', b"[" * 1000):
        write(world, world.topics.job_events, value)
    world.produce(b'{"prompt": "b"}')
    await settled(world)
    world.kill("p")
    planner = world.start("q")
    world.produce(b'{"prompt": "c"}')
    await world.until(lambda: world.finished() == 3)
    assert planner.readiness().ready


@simulated
async def test_a_newer_event_of_the_epoch_in_force_is_history(world: World) -> None:
    """It cannot be folded by whoever is older, wherever his reading begins."""
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    [epoch] = [n for n, value in enumerate(world.values(world.topics.job_events)) if b'"planner_started"' in value]
    world.kill("p")
    write(world, world.topics.job_events, b'{"epoch":%d,"type":"something_new"}' % epoch)
    planner = world.start("q")
    await world.until(lambda: left_alone(planner))
