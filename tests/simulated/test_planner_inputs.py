"""The planner's inputs and timers around take-overs: repeated ids, bad records, due timers, silent nodes (simulated, virtual time)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from services.planner.settings import PlannerSettings
from shared.contracts import headers, ids
from shared.contracts.event import StepAsked, WorkWasted
from shared.contracts.reply import Final
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import TopicPartition
from tests.support.planner_traces import TWO_STEPS, events, settled, simulated, starts
from tests.support.planner_world import World

WAITS = (("correlation-id", b"c2"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))


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
    await world.check_laws(1)
    assert world.node.runs == 1


@simulated
async def test_the_same_client_id_twice_is_one_job(world: World) -> None:
    """Variant `client submits the id twice`: the second caller gets the first one's result, nothing runs again."""
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await settled(world)
    world.produce(b'{"prompt": "a", "id": "mine"}', headers_=WAITS)
    await world.until(lambda: len(world.values("replies.test")) == 1)
    [reply] = world.values("replies.test")
    final = Final.model_validate_json(reply)
    assert final.correlation == b"c2"
    assert [final.result.to_bytes()] == world.results()["mine"]
    assert world.node.runs == 1
    await world.check_laws(1)


@simulated
async def test_the_same_client_id_with_another_body_is_refused(world: World) -> None:
    """409 for Kafka producers: the second caller is told, the first job is untouched."""
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await settled(world)
    world.produce(b'{"prompt": "b", "id": "mine"}', headers_=WAITS)
    await world.until(lambda: len(world.values("replies.test")) == 1)
    final = Final.model_validate_json(world.values("replies.test")[0])
    assert final.result.failure is not None
    assert "another body" in final.result.failure.message
    await world.check_laws(1)


@simulated
async def test_a_due_timer_waits_for_outcomes_already_in_the_log(world: World) -> None:
    """The lease expires while the success lies unread in `outcomes`: the success is folded first, nothing is tried again."""
    world.options = PlannerSettings(lease_seconds=3)
    world.node.seconds = (4.0, 4.0)
    world.log.faults.delivery_of[TopicPartition(world.topics.outcomes, 0)] = (3.0, 3.0)
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await settled(world)
    assert world.node.runs == 1
    await world.check_laws(1)


@simulated
async def test_a_silent_node_costs_an_attempt_not_the_job(world: World) -> None:
    """Routed and never claimed: after the claim timeout the next attempt; counted from routing, not from planning."""
    world.node.silent = 1.0
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await world.until(lambda: len(world.node.steps_seen) == 1)
    await asyncio.sleep(60)
    assert len(world.node.steps_seen) == 1, "not routed: waiting for a router is not a lost attempt"
    world.node.silent = 0.0
    step = world.node.steps_seen[0]
    routed = {"type": "routed", "job": step.job, "step": step.id, "attempt": 1, "node": "n", "mailbox": 0, "offset": 1}
    world.outcome(_Raw(routed))
    await settled(world)
    assert [s.attempt for s in world.node.steps_seen] == [1, 2]
    await world.check_laws(1)


class _Raw:
    """An outcome written field by field."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.type = fields["type"]
        self._fields = fields

    def to_bytes(self) -> bytes:

        return json.dumps(self._fields).encode()


@simulated
async def test_bad_records_do_not_stop_the_partition(world: World) -> None:
    """Not JSON, not a job, too deep, too large, of an unknown version: dead letters with the place and the reason; the next job runs."""
    waits = (("correlation-id", b"c"), ("reply-topic", b"replies.test"), ("reply-partition", b"0"))
    world.start("p")
    world.produce(b"not json", headers_=waits)
    world.produce(b'{"promt": "misspelt"}')
    world.produce(b'{"prompt": "x", "metadata": ' + b"[" * 100 + b"]" * 100 + b"}")
    world.produce(b'{"prompt": "' + b"x" * 1_050_000 + b'"}')
    world.produce(b'{"prompt": "x"}', headers_=((headers.VERSION_HEADER, b"99"),))
    world.produce(b'{"prompt": "x"}', headers_=(("kafka_replyTopic", b"replies.test"), ("kafka_replyPartition", b"xx")))
    world.produce(b'{"prompt": "x"}', headers_=(("reply-topic", b"job-events"),))
    world.produce(b'{"prompt": "good"}')
    await settled(world)
    letters = world.values(world.topics.dead_letters)
    assert len(letters) == 7
    assert len(world.values("replies.test")) == 1
    assert b'"failed"' in world.values("replies.test")[0]
    await world.check_laws(1)


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
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await settled(world)
    for number in range(200):
        world.produce(b'{"prompt": "%d"}' % number)
    await settled(world, 201)
    await asyncio.sleep(5)
    await world.stop("p")
    assert world.log.group("tutti-planner").offsets[events(world)] > 10
    world.produce(b'{"prompt": "a", "id": "mine"}', headers_=WAITS)
    world.produce(b'{"prompt": "b", "id": "other"}')
    world.start("q")
    await settled(world, 202)
    await world.until(lambda: len(world.values("replies.test")) == 1)
    assert [Final.model_validate_json(world.values("replies.test")[0]).result.to_bytes()] == world.results()["mine"]
    assert world.node.runs == 202
    await world.check_laws(202)


@simulated
async def test_a_client_id_is_recognised_when_the_job_is_forgotten(world: World) -> None:
    """Its settle event is read again from history; others go on meanwhile; a new id is a new job."""
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await settled(world)
    await asyncio.sleep(5)
    for number in range(3):
        world.produce(b'{"prompt": "a", "id": "mine"}', headers_=WAITS)
        world.produce(b'{"prompt": "b", "id": "new-%d"}' % number)
    world.produce(b'{"prompt": "other body", "id": "mine"}', headers_=WAITS)
    await settled(world, 4)
    await world.until(lambda: len(world.values("replies.test")) == 4)
    finals = [Final.model_validate_json(value).result for value in world.values("replies.test")]
    assert [final.to_bytes() for final in finals[:3]] == world.results()["mine"] * 3
    assert finals[3].failure is not None
    assert "another body" in finals[3].failure.message
    await world.check_laws(4)


@simulated
async def test_an_id_of_a_job_taken_out_of_its_turn_is_recognised(world: World) -> None:
    """Its record lies behind the committed position, so the job is still known; what it answered is read again, also for ids like ours."""
    world.options = PlannerSettings(live_jobs=16)
    world.node.seconds = (1.0, 1.0)
    for number in range(200):
        world.produce(b'{"prompt": "%d", "tenant": "large"}' % number)
    names, ours = ("small/mine", "j_mine"), ((headers.MADE_BY, b"ingress"),)
    bodies = [b'{"prompt": "a", "tenant": "small", "id": "%s"}' % ids.public(name).encode() for name in names]
    for body in bodies:
        world.produce(body, headers_=ours)
    planner = world.start("p")
    await world.until(lambda: set(names) <= set(world.results()))
    await asyncio.sleep(1)
    [book] = [owned.home._book for owned in planner.homes.owned.values()]
    assert set(names) <= set(book.out)
    for body in bodies:
        world.produce(body, headers_=(*ours, *WAITS))
        world.produce(body.replace(b'"a"', b'"b"'), headers_=(*ours, *WAITS))
    await world.until(lambda: len(world.values("replies.test")) == 4)
    finals = [Final.model_validate_json(value).result for value in world.values("replies.test")]
    assert {f.to_bytes() for f in finals if f.failure is None} == {world.results()[name][0] for name in names}
    assert ["another body" in f.failure.message for f in finals if f.failure is not None] == [True, True]
    await settled(world, 202)
    await world.check_laws(202)


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
    await world.check_laws(7)


@simulated
async def test_outcomes_that_are_read_before_their_job_are_waste_and_cost_it_nothing(world: World) -> None:
    """The append that accepts the job is lost, while its step, sent beside it, is claimed and answered. The planner takes the partition
    again and reads those outcomes before the job's record: of no job they are waste. The step goes out anew as the same attempt, and the
    job has it still: no attempt is counted, nothing waits for a timeout.
    """
    world.start("p")
    await asyncio.sleep(5)
    world.log.faults.script(events(world), Fate.LOST)
    world.produce(b'{"prompt": "a", "limits": {"attempts": 1}, "id": "mine"}')
    await asyncio.sleep(3)
    assert b'"succeeded"' in world.results()["mine"][0]
    assert [step.attempt for step in world.node.steps_seen] == [1, 1]
    assert len({step.id for step in world.node.steps_seen}) == 1
    assert starts(world) == 2
    await world.check_laws(1)


@simulated
async def test_timers_survive_an_outage_at_the_moment_they_are_due(world: World) -> None:
    """Where `outcomes` ends cannot be asked while Kafka is away; the timer fires after it is back, though nothing else happens."""
    world.options = PlannerSettings(deadline_standard_seconds=10)
    world.node.silent = 1.0
    world.start("p")
    world.produce(b'{"prompt": "a"}')
    await world.until(lambda: len(world.node.steps_seen) == 1)
    await asyncio.sleep(8)
    world.log.go_away("fails")
    await asyncio.sleep(3)
    world.log.come_back()
    await settled(world)
    assert b'"expired"' in next(iter(world.results().values()))[0]


@simulated
async def test_a_backlog_of_client_given_ids_waits_for_recent_ids_without_spinning(world: World) -> None:
    """More of them than a home may hold while it learns recent ids: intake stops, everything else goes on, and then all of them run."""
    world.options = PlannerSettings(live_jobs=8, queue_records=16)
    for number in range(60):
        world.produce(json.dumps({"prompt": f"q{number}", "id": f"mine-{number}"}).encode())
    world.start("p")
    await settled(world, 60)
    world.kill("p")
    for number in range(60, 120):
        world.produce(json.dumps({"prompt": f"q{number}", "id": f"mine-{number}"}).encode())
    world.start("q")
    await settled(world, 120)
    await world.check_laws(120)
