"""The traces that the checked model of the planner's protocol named, one test each (simulated, virtual time).

Each is a sequence that breaks a slightly different protocol; the names are those of the model's variants.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.planner.settings import PlannerOptions
from shared.contracts import headers
from shared.contracts.event import PlannerStarted, StepAnswered, StepAsked, WorkWasted
from shared.contracts.outcome import StepSucceeded
from shared.contracts.reply import Final
from shared.kafka.memory_faults import Fate
from shared.kafka.port import Message, TopicPartition
from tests.support.planner_world import World
from tests.support.virtual_loop import run

TWO_STEPS = b"""{"prompt": "q", "pattern": "chain",
  "chain": [{"name": "first", "template": "one {input}"}, {"name": "second", "template": "two {first}"}]}"""


def simulated(test: Any) -> Any:
    """Run an async test of a World under virtual time."""

    def wrapper() -> None:
        async def body() -> None:
            async with World(7, homes=1) as world:
                await test(world)

        run(body())

    wrapper.__name__, wrapper.__doc__ = test.__name__, test.__doc__
    return wrapper


def events(world: World) -> TopicPartition:
    return TopicPartition(world.topics.job_events, 0)


def starts(world: World) -> int:
    return sum(b'"planner_started"' in v for v in world.values(world.topics.job_events))


async def settled(world: World, count: int = 1) -> None:
    await world.until(lambda: world.finished() == count)


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
    world.check_laws(2)


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
    world.check_laws(2)


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
    world.check_laws(1)


@simulated
async def test_a_lost_append_loses_nothing(world: World) -> None:
    """The round never reached the log: its inputs were not committed and are read again."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    world.log.faults.script(events(world), Fate.LOST, Fate.LOST)
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    world.check_laws(1)


@simulated
async def test_offset_minus_one_is_not_taken_as_good(world: World) -> None:
    """The broker acknowledges a de-duplicated retry without an offset: the fold is forgotten, history decides."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    world.log.faults.script(events(world), Fate.OFFSET_UNKNOWN)
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    assert starts(world) == 2
    world.check_laws(1)


@simulated
async def test_a_zombie_accepts_nothing(world: World) -> None:
    """Paused beyond the session timeout while another planner owns the partition; awake again, its append is not the next."""
    world.node.seconds = (1.0, 2.0)
    world.start("old")
    for number in range(5):
        world.produce(b'{"prompt": "%d"}' % number)
    await world.until(lambda: len(world.steps_seen) == 5)
    world.freeze("old")
    world.start("new")
    await world.until(lambda: starts(world) >= 2)
    await asyncio.sleep(5)
    world.thaw("old")
    await settled(world, 5)
    await asyncio.sleep(60)
    world.check_laws(5)


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
    world.check_laws(3)


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
    world.check_laws(1)


@simulated
async def test_steps_whose_dispatch_died_with_the_planner_are_sent_again(world: World) -> None:
    """Variant `commands lost at a crash`: asked in history, never sent; the successor sends them at once, same attempt."""
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    for topic in world.topics.all_steps():
        for partition in range(2):
            world.log.faults.script(TopicPartition(topic, partition), *[Fate.LOST] * 100)
    world.produce(b'{"prompt": "a"}')
    await world.until(lambda: any(b'"step_asked"' in v for v in world.values(world.topics.job_events)))
    world.kill("p")
    world.log.faults.heal()
    world.start("q")
    await settled(world)
    assert {s.attempt for s in world.steps_seen} == {1}
    world.check_laws(1)


@simulated
async def test_an_answer_made_from_another_history_is_waste(world: World) -> None:
    """Variant `no digest`: a zombie's second step, made from an answer that was never accepted, has an id nobody asked for."""
    world.start("p")
    world.produce(TWO_STEPS)
    await world.until(lambda: len(world.steps_seen) == 2)
    second = world.steps_seen[1]
    other = StepSucceeded.model_validate(
        {"job": second.job, "step": "f" * 32, "attempt": 1, "answer": {"text": "other"}, "usage": {"calls": 1}}
    )
    world.outcome(other)
    await settled(world)
    [[result]] = world.results().values()
    assert b"other" not in result
    assert not [e for e in world.history(0) if isinstance(e, StepAnswered) and e.answer.text == "other"]
    assert len([e for e in world.history(0) if isinstance(e, StepAnswered)]) == 2


def test_the_id_of_a_step_holds_its_input() -> None:
    """Variant `no digest`: two histories of one job that differ in the first answer ask for second steps with different ids."""

    async def body(answer: str) -> list[str]:
        async with World(7, homes=1) as world:
            world.answer = lambda *_: answer
            world.start("p")
            world.produce(TWO_STEPS.replace(b'"prompt"', b'"id": "mine", "prompt"'))
            await settled(world)
            return [step.id for step in world.steps_seen]

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
    second = {s.id: s for s in world.steps_seen if s.messages[0].content.startswith("two ")}
    assert [s.messages[0].content for s in second.values()] == [f"two {first.answer.text}"]
    world.check_laws(1)


@simulated
async def test_a_forgotten_group_starts_over_without_doubling(world: World) -> None:
    """Variant `group offsets expire`: inputs are read from the beginning; jobs whose history is still there are not run again."""
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await settled(world)
    await world.stop("p")
    world.log.group(world.topics.settings.prefix + "tutti-planner").offsets.clear()
    world.start("q")
    await asyncio.sleep(30)
    world.check_laws(1)
    assert world.runs == 1


@simulated
async def test_the_same_client_id_twice_is_one_job(world: World) -> None:
    """Variant `client submits the id twice`: the second caller gets the first one's result, nothing runs again."""
    waits = (("correlation-id", b"c2"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await settled(world)
    world.produce(b'{"prompt": "a", "id": "mine"}', headers_=waits)
    await world.until(lambda: len(world.values("replies.test")) == 1)
    [reply] = world.values("replies.test")
    final = Final.model_validate_json(reply)
    assert final.correlation == b"c2"
    assert [final.result.to_bytes()] == world.results()["mine"]
    assert world.runs == 1
    world.check_laws(1)


@simulated
async def test_the_same_client_id_with_another_body_is_refused(world: World) -> None:
    """409 for Kafka producers: the second caller is told, the first job is untouched."""
    waits = (("correlation-id", b"c2"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await settled(world)
    world.produce(b'{"prompt": "b", "id": "mine"}', headers_=waits)
    await world.until(lambda: len(world.values("replies.test")) == 1)
    final = Final.model_validate_json(world.values("replies.test")[0])
    assert final.result.failure is not None
    assert "another body" in final.result.failure.message
    world.check_laws(1)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_watermark_waits_for_the_snapshot(parts: int) -> None:
    """Variant `watermark before the snapshot's acknowledgement`: killed at any time around it, the long job is not forgotten."""

    async def body() -> None:
        async with World(11, homes=1, options=PlannerOptions(snapshot_distance=20, lease_seconds=500)) as world:
            world.node.seconds = (0.0, 0.0)
            long = b'{"prompt": "%s", "not_before": null}' % (b"long " * (8_000 if parts > 1 else 10))
            world.node.silent = 1.0
            world.produce(long)
            world.start("p")
            await world.until(lambda: len(world.steps_seen) == 1)
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
            world.check_laws(61)

    run(body())


@simulated
async def test_a_due_timer_waits_for_outcomes_already_in_the_log(world: World) -> None:
    """The lease expires while the success lies unread in `outcomes`: the success is folded first, nothing is tried again."""
    world.options = PlannerOptions(lease_seconds=3)
    world.node.seconds = (4.0, 4.0)
    world.log.faults.delivery_of[TopicPartition(world.topics.outcomes, 0)] = (3.0, 3.0)
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    assert world.runs == 1
    world.check_laws(1)


@simulated
async def test_a_silent_node_costs_an_attempt_not_the_job(world: World) -> None:
    """Routed and never claimed: after the claim timeout the next attempt; counted from routing, not from planning."""
    world.node.silent = 1.0
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await world.until(lambda: len(world.steps_seen) == 1)
    await asyncio.sleep(60)
    assert len(world.steps_seen) == 1, "not routed: waiting for a router is not a lost attempt"
    world.node.silent = 0.0
    step = world.steps_seen[0]
    routed = {"type": "routed", "job": step.job, "step": step.id, "attempt": 1, "node": "n", "mailbox": 0, "offset": 1}
    world.outcome(_Raw(routed))
    await settled(world)
    assert [s.attempt for s in world.steps_seen] == [1, 2]
    world.check_laws(1)


class _Raw:
    """An outcome written field by field."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.type = fields["type"]
        self._fields = fields

    def to_bytes(self) -> bytes:
        import json

        return json.dumps(self._fields).encode()


@simulated
async def test_bad_records_do_not_stop_the_partition(world: World) -> None:
    """Not JSON, not a job, too deep, too large, of an unknown version: dead letters with the place and the reason; the next job runs."""
    waits = (("correlation-id", b"c"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))
    world.start("p")
    world.produce(b"not json", headers_=waits)
    world.produce(b'{"promt": "misspelt"}')
    world.produce(b'{"prompt": "x", "metadata": ' + b"[" * 100 + b"]" * 100 + b"}")
    world.produce(b'{"prompt": "' + b"x" * 70_000 + b'"}')
    world.produce(b'{"prompt": "x"}', headers_=((headers.VERSION_HEADER, b"99"),))
    world.produce(b'{"prompt": "x"}', headers_=(("kafka_replyTopic", b"replies.test"), ("kafka_replyPartition", b"xx")))
    world.produce(b'{"prompt": "x"}', headers_=(("reply-topic", b"job-events"),))
    world.produce(b'{"prompt": "good"}')
    await settled(world)
    letters = world.values(world.topics.dead_letters)
    assert len(letters) == 7
    assert len(world.values("replies.test")) == 1
    assert b'"failed"' in world.values("replies.test")[0]
    world.check_laws(1)


@simulated
async def test_wasted_work_is_counted_in_the_job(world: World) -> None:
    """The losing run of a doubled step is paid for: its usage is in the result as waste, when it arrives before the end."""
    world.node.runs_twice = 1.0
    world.start("p")
    world.produce(TWO_STEPS)
    await settled(world)
    assert [e for e in world.history(0) if isinstance(e, StepAsked)]
    assert [e for e in world.history(0) if isinstance(e, WorkWasted)]


@simulated
async def test_a_client_id_is_recognised_by_the_successor(world: World) -> None:
    """Settled long before the watermark, sent again after a take-over: the same result, no second run; a new id does not wait for it."""
    waits = (("correlation-id", b"c2"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await settled(world)
    for number in range(5):
        world.produce(b'{"prompt": "%d"}' % number)
    await settled(world, 6)
    await asyncio.sleep(5)
    await world.stop("p")
    assert world.log.group("tutti-planner").offsets[events(world)] > 10
    world.produce(b'{"prompt": "a", "id": "mine"}', headers_=waits)
    world.produce(b'{"prompt": "b", "id": "other"}')
    world.start("q")
    await settled(world, 7)
    await world.until(lambda: len(world.values("replies.test")) == 1)
    assert [Final.model_validate_json(world.values("replies.test")[0]).result.to_bytes()] == world.results()["mine"]
    assert world.runs == 7
    world.check_laws(7)


@simulated
async def test_killed_while_jobs_wait_for_recent_ids(world: World) -> None:
    """What waits is not committed past: the next owner reads it again."""
    world.start("p")
    for number in range(5):
        world.produce(b'{"prompt": "%d"}' % number)
    await settled(world, 5)
    await world.stop("p")
    world.log.faults.call_seconds = (3.0, 3.0)
    world.produce(b'{"prompt": "a", "id": "mine"}')
    world.produce(b'{"prompt": "b"}')
    world.start("q")
    await asyncio.sleep(20)
    world.kill("q")
    world.log.faults.heal()
    world.start("r")
    await settled(world, 7)
    world.check_laws(7)


@simulated
async def test_timers_survive_an_outage_at_the_moment_they_are_due(world: World) -> None:
    """Where `outcomes` ends cannot be asked while Kafka is away; the timer fires after it is back, though nothing else happens."""
    world.options = PlannerOptions(deadline_standard_seconds=10)
    world.node.silent = 1.0
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await world.until(lambda: len(world.steps_seen) == 1)
    await asyncio.sleep(8)
    world.log.go_away("fails")
    await asyncio.sleep(3)
    world.log.come_back()
    await settled(world)
    assert b'"expired"' in next(iter(world.results().values()))[0]
