"""The traces that the checked model of the planner's protocol named, one test each (simulated, virtual time).

Each is a sequence that breaks a slightly different protocol; the names are those of the model's variants.
"""

from __future__ import annotations

import asyncio

import pytest

from infra.lab.virtual_loop import run
from infra.verify.laws import LawKind
from services.planner.settings import PlannerSettings
from shared.contracts.event import PlannerStarted, StepAnswered
from shared.contracts.outcome import StepClaimed, StepSucceeded, WorkerStarted, claim_id
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import Message, TopicPartition
from tests.support.planner_traces import TWO_STEPS, events, settled, simulated, starts
from tests.support.planner_world import World


@simulated
async def test_stale_records_in_the_gap_are_passed_over(world: World) -> None:
    """Variant `gap: stop`: a fenced writer's late record shifts our append; we go on with the fold, nothing is taken again."""
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    stale = b'{"type":"cancel_recorded","epoch":999,"job":"ghost","at":1.0,"reason":"a zombie wrote this"}'
    world.log.write(events(world), [Message(world.topics.job_events, stale, b"ghost", 0)])
    world.produce(b'{"prompt": "b"}')
    await settled(world, 2)
    assert starts(world) == 1
    await world.check_laws(2, {LawKind.IMPOSSIBLE_EPOCH})


@simulated
async def test_a_planner_started_in_the_gap_means_take_again(world: World) -> None:
    """Variant `epoch by generation`: whoever finds a PlannerStarted in its gap forgets its fold, and takes the partition anew."""
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    foreign = PlannerStarted(nonce="x", planner="other").to_bytes()
    world.log.write(events(world), [Message(world.topics.job_events, foreign, None, 0)])
    world.produce(b'{"prompt": "b"}')
    await settled(world, 2)
    assert starts(world) == 3
    await world.check_laws(2)


@simulated
async def test_a_gap_that_retention_has_reached_into_means_take_again(world: World) -> None:
    """The PlannerStarted of another owner is deleted before our append comes to lie behind it: what is gone proves nothing."""
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    foreign = PlannerStarted(nonce="x", planner="other").to_bytes()
    stale = b'{"type":"cancel_recorded","epoch":999,"job":"ghost","at":1.0,"reason":"a zombie wrote this"}'
    world.log.write(events(world), [Message(world.topics.job_events, value, None, 0) for value in (foreign, stale)])
    partition = world.log.existing(events(world))
    partition.delete_before(partition.end - 1)
    world.produce(b'{"prompt": "b"}')
    await settled(world, 2)
    assert starts(world) == 1, "the first start and the foreign one are deleted: it has started anew"


@simulated
async def test_an_append_of_unknown_fate_is_never_sent_again(world: World) -> None:
    """Variant `new producer re-sends`: the round lies in the log, its sender does not know; a new PlannerStarted finds it there."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    world.log.faults.script(events(world), Fate.UNACKNOWLEDGED)
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    assert starts(world) == 2
    accepted = [v for v in world.values(world.topics.job_events) if b'"job_accepted"' in v]
    assert len(accepted) == 1
    await world.check_laws(1)


@simulated
async def test_a_lost_append_loses_nothing(world: World) -> None:
    """The round never reached the log: its inputs were not committed and are read again."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    world.log.faults.script(events(world), Fate.LOST, Fate.LOST)
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    await world.check_laws(1)


@simulated
async def test_offset_minus_one_is_not_taken_as_good(world: World) -> None:
    """The broker acknowledges a de-duplicated retry without an offset: the fold is forgotten, history decides."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    world.log.faults.script(events(world), Fate.OFFSET_UNKNOWN)
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    assert starts(world) == 2
    await world.check_laws(1)


@simulated
async def test_a_zombie_accepts_nothing(world: World) -> None:
    """Paused beyond the session timeout while another planner owns the partition; awake again, its append is not the next."""
    world.node.seconds = (1.0, 2.0)
    world.start("old")
    for number in range(5):
        world.produce(b'{"prompt": "%d"}' % number)
    await world.until(lambda: len(world.node.steps_seen) == 5)
    world.log.freeze("old")
    world.start("new")
    await world.until(lambda: starts(world) >= 2)
    await asyncio.sleep(5)
    world.log.thaw("old")
    await settled(world, 5)
    await asyncio.sleep(60)
    await world.check_laws(5)


@simulated
async def test_killed_between_settle_and_result(world: World) -> None:
    """Variant `literal watermark`: the settle event is in the log, the result is not; the successor publishes it."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    for partition in range(2):
        world.log.faults.script(TopicPartition(world.topics.results, partition), *[Fate.LOST] * 5_000)
    for number in range(3):
        world.produce(b'{"prompt": "%d"}' % number)
        await world.until(lambda: sum(b'"job_settled"' in v for v in world.values(world.topics.job_events)) > number)  # noqa: B023
        await asyncio.sleep(5)
    assert world.finished() == 0
    world.kill("p")
    world.log.faults.heal()
    world.start("q")
    await settled(world, 3)
    await world.check_laws(3)


@simulated
async def test_nothing_is_published_before_the_settle_event_is_acknowledged(world: World) -> None:
    """Variant `early publish`: while the append of the settle event is under way there is no result."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    world.log.faults.ack_seconds = (3.0, 3.0)
    world.produce(b'{"prompt": "a"}')
    await world.until(lambda: any(b'"job_settled"' in v for v in world.values(world.topics.job_events)))
    assert world.finished() == 0
    world.log.faults.heal()
    await settled(world)
    await world.check_laws(1)


@simulated
async def test_steps_whose_dispatch_died_with_the_planner_are_sent_again(world: World) -> None:
    """Variant `commands lost at a crash`: asked in history, never sent; the successor sends them at once, same attempt."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    for topic in world.topics.all_steps():
        for partition in range(2):
            world.log.faults.script(TopicPartition(topic, partition), *[Fate.LOST] * 100)
    world.produce(b'{"prompt": "a"}')
    await world.until(lambda: any(b'"job_accepted"' in v for v in world.values(world.topics.job_events)))
    world.kill("p")
    world.log.faults.heal()
    world.start("q")
    await settled(world)
    assert {s.attempt for s in world.node.steps_seen} == {1}
    await world.check_laws(1)


@simulated
async def test_an_answer_made_from_another_history_is_waste(world: World) -> None:
    """Variant `no digest`: a zombie's second step, made from an answer that was never accepted, has an id nobody asked for."""
    world.start("p")
    world.produce(TWO_STEPS)
    await world.until(lambda: len(world.node.steps_seen) == 2)
    second = world.node.steps_seen[1]
    other = StepSucceeded.model_validate(
        {"job": second.job, "step": "f" * 32, "attempt": 1, "answer": {"text": "other"}, "usage": {"calls": 1}}
    )
    world.outcome(other)
    await settled(world)
    [[result]] = world.results().values()
    assert b"other" not in result
    assert not [e for e in world.history(0) if isinstance(e, StepAnswered) and e.answer.text == "other"]
    assert len([e for e in world.history(0) if isinstance(e, StepAnswered)]) == 2


@simulated
async def test_a_claim_of_a_boot_that_woke_too_late_holds_up_nothing(world: World) -> None:
    """A paused boot wakes after its successor told of itself, claims, and commits past the record: nobody else will ever read it."""
    world.node.silent = 1.0
    world.start("p")
    world.produce(b'{"prompt": "a", "stream": true}')
    await world.until(lambda: len(world.node.steps_seen) == 1)
    [step] = world.node.steps_seen
    world.outcome(WorkerStarted(node="n1", incarnation=9))
    late = {"job": step.job, "step": step.id, "attempt": 1, "node": "n1", "claim": claim_id("n1", 4, 1)}
    world.outcome(StepClaimed.model_validate({**late, "mailbox": 0, "lease_seconds": 20.0}))
    world.outcome(StepSucceeded.model_validate({**late, "answer": {"text": "of another boot"}}))
    world.node.silent = 0.0
    await world.until(lambda: world.finished() == 1, seconds=30.0)
    assert [s.attempt for s in world.node.steps_seen] == [1, 2]
    assert not [e for e in world.history(0) if isinstance(e, StepAnswered) and e.answer.text == "of another boot"]
    await world.check_laws(1)


def test_the_id_of_a_step_holds_its_input() -> None:
    """Variant `no digest`: two histories of one job that differ in the first answer ask for second steps with different ids."""

    async def body(answer: str) -> list[str]:
        async with World(7, homes=1) as world:
            world.node.answer = lambda *_: answer
            world.start("p")
            world.produce(TWO_STEPS.replace(b'"prompt"', b'"id": "mine", "prompt"'))
            await settled(world)
            return [step.id for step in world.node.steps_seen]

    one, other = run(body("one")), run(body("other"))
    assert one[0] == other[0]
    assert one[1] != other[1]


@simulated
async def test_the_second_step_is_made_from_the_accepted_first(world: World) -> None:
    """Both runs of a doubled first step answer; only one is accepted, and the second step's input holds exactly that one."""
    world.node.runs_twice = 1.0
    world.start("p")
    world.produce(TWO_STEPS)
    await settled(world)
    first = next(e for e in world.history(0) if isinstance(e, StepAnswered))
    second = {s.id: s for s in world.node.steps_seen if s.messages[0].content.startswith("two ")}
    assert [s.messages[0].content for s in second.values()] == [f"two {first.answer.text}"]
    await world.check_laws(1)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_watermark_waits_for_the_snapshot(parts: int) -> None:
    """Variant `watermark before the snapshot's acknowledgement`: killed at any time around it, the long job is not forgotten."""

    async def body() -> None:
        async with World(11, homes=1, options=PlannerSettings(snapshot_distance=20, lease_seconds=500)) as world:
            world.node.seconds = (0.0, 0.0)
            long = b'{"prompt": "%s", "not_before": null}' % (b"long " * (8_000 if parts > 1 else 10))
            world.node.silent = 1.0
            world.produce(long)
            world.start("p")
            await world.until(lambda: len(world.node.steps_seen) == 1)
            world.node.silent = 0.0
            for number in range(60):
                world.produce(b'{"prompt": "%d"}' % number)
                await asyncio.sleep(0.3)
                if number % 20 == 19:
                    world.kill("p")
                    world.start("p")
            await settled(world, 61)
            committed = world.log.group("tutti-planner").offsets
            assert any(b'"job_snapshot"' in v for v in world.values(world.topics.job_events))
            assert committed[events(world)] > 20
            await world.check_laws(61)

    run(body())
