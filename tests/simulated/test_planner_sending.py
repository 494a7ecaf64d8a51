"""Nothing of a planner waits for a destination that takes nothing, and what an end owes is not forgotten before it is out.

Each topic that a planner writes to fails alone, at once or after the client's patience, or is not there, for minutes; a planner is killed
at each point where something is owed.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from infra.lab.virtual_loop import run
from services.planner.settings import PlannerSettings
from services.planner.shard import ahead
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.delayed import Delayed
from shared.contracts.job import Job
from shared.contracts.outcome import CancelRequested, ClaimsRenewed, StepClaimed, StepFailed
from shared.contracts.result import Result, Status
from shared.contracts.schedule import KIND, Schedule
from shared.errors import RecordTooLarge
from shared.kafka import sizes
from shared.kafka.memory import memory_producer
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import Message, TopicPartition
from shared.processing.registry import registry_key
from shared.topics import Topics
from tests.support.planner_traces import settled, simulated
from tests.support.planner_world import World


def claimed(world: World, **changes: object) -> StepClaimed:
    """Of a step that nobody asked for."""
    of = {"job": "gone", "step": "5" * 32, "attempt": 1, "claim": "n.b.1", "node": "n", "mailbox": 1, "lease_seconds": 20.0}
    return StepClaimed.model_validate(of | changes)


def make_it_owe(world: World, number: int) -> None:
    """One thing for each topic that a planner writes to besides its history: a dead letter, a refused claim, a delayed job, a stop."""
    world.produce(b"no job")
    world.outcome(claimed(world, claim=f"n.b.{number}"))
    world.produce(json.dumps({"prompt": "later", "id": f"later-{number}", "not_before": world.clock.wall() + 5_000}).encode())
    world.produce(b'{"prompt": "batch"}', priority_class=PriorityClass.BATCH)


@pytest.mark.parametrize("seconds", [0.0, 20.0])
@pytest.mark.parametrize("away", ["dead-letters", "controls", "delays.1h", "steps.chat.batch", "replies", "replies.test"])
def test_a_topic_that_takes_nothing_stops_nothing_else(away: str, seconds: float) -> None:
    """For five minutes, in both homes; when it is back all that was owed goes out."""

    async def main() -> None:
        async with World(5) as world:
            world.start("p")
            await asyncio.sleep(2.0)
            world.log.faults.away[away] = seconds
            for number in range(60):
                make_it_owe(world, number)
                for home in (0, 1):
                    address = (("reply-topic", b"replies.test"), ("reply-partition", b"0"), ("correlation-id", b"c"))
                    world.produce(json.dumps({"prompt": "q", "id": f"now-{home}-{number}"}).encode(), home=home, headers_=address)
                await asyncio.sleep(5.0)
                done = world.results()
                assert all(f"now-{home}-{number}" in done for home in (0, 1)), f"job {number} waits for {away}"
            world.log.faults.heal()
            await asyncio.sleep(10.0)
            assert len(world.values(world.topics.dead_letters)) == 60
            assert len({v for v in world.values(world.topics.controls) if b'"gone"' in v}) == 60
            assert len(world.values(world.topics.delay("1h"))) == 60
            assert len(world.results()) == 180

    run(main())


OWING: dict[str, str | TopicPartition] = {"forwards": TopicPartition("jobs.batch", 1), "letters": "dead-letters", "delays": "delays.1h"}
"""What a flood of batch records may owe, and where it is to go."""


def owing_record(world: World, owing: str, number: int) -> bytes:
    match owing:
        case "forwards":
            return json.dumps({"prompt": "q", "id": at_home_on(1, number)}).encode()
        case "letters":
            return b"no job"
        case _:
            return json.dumps({"prompt": "q", "not_before": world.clock.wall() + 5_000.0}).encode()


def at_home_on(home: int, number: int) -> str:
    return next(f"id-{number}-{n}" for n in range(100) if ids.home_of(f"id-{number}-{n}", 2) == home)


@pytest.mark.parametrize("owing", OWING)
def test_records_that_owe_something_fill_their_own_class_alone(owing: str) -> None:
    """More of them than a home may have live jobs, and nothing of it is acknowledged: the other classes run as always."""

    async def main() -> None:
        async with World(5) as world:
            world.start("p")
            await asyncio.sleep(2.0)
            world.log.faults.away[OWING[owing]] = 0.0
            for number in range(2 * world.options.live_jobs):
                world.produce(owing_record(world, owing, number), priority_class=PriorityClass.BATCH)
            await asyncio.sleep(5.0)
            for number in range(20):
                for others in (PriorityClass.INTERACTIVE, PriorityClass.STANDARD):
                    world.produce(b'{"prompt": "q%d"}' % number, priority_class=others)
            await world.until(lambda: world.finished() == 40, 30.0)

    run(main())


@simulated
async def test_ended_jobs_behind_a_position_that_is_held_close_their_own_class_alone(world: World) -> None:
    """Much is remembered of them until the position passes: the class waits, the others go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "MOST_ENDED", 60)
        world.start("p")
        world.log.faults.away[world.topics.dead_letters] = 0.0
        for number in range(100):
            world.produce(b'{"prompt": "q%d"}' % number if number else b"no job", priority_class=PriorityClass.BATCH)
            await asyncio.sleep(0.05)
        await asyncio.sleep(20.0)
        assert 60 <= world.finished() < 90
        before = world.finished()
        for number in range(50):
            world.produce(b'{"prompt": "q%d"}' % number)
        await world.until(lambda: world.finished() == before + 50, 30.0)
        world.log.faults.heal()
        await settled(world, 149)


@simulated
async def test_what_is_owed_is_read_again_by_a_successor(world: World) -> None:
    """While `dead-letters` and `controls` take nothing the position stays before the records that owe something, whatever follows them."""
    world.start("p")
    await asyncio.sleep(2.0)
    world.log.faults.away.update({world.topics.dead_letters: 0.0, world.topics.controls: 0.0})
    world.produce(b"no job")
    world.outcome(claimed(world))
    for _ in range(5):
        world.produce(b'{"prompt": "q"}')
        await asyncio.sleep(2.0)
    assert world.finished() == 5
    world.kill("p")
    world.log.faults.heal()
    world.start("q")
    await asyncio.sleep(30.0)
    [letter] = world.values(world.topics.dead_letters)
    assert DeadLetter.model_validate_json(letter).offset == 0
    assert any(b'"n.b.1"' in value for value in world.values(world.topics.controls))
    await world.check_laws(5)


@simulated
async def test_a_job_is_out_when_its_stop_is(world: World) -> None:
    """The stop of a cancelled job's step is not acknowledged when its result is: a successor sends it."""
    world.options = PlannerSettings(lease_seconds=5_000)
    world.node.seconds = (8.0, 8.0)
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await world.until(lambda: any(b'"step_claimed"' in value for value in world.values(world.topics.job_events)))
    world.log.faults.away[world.topics.controls] = 0.0
    world.outcome(CancelRequested(job="mine"))
    await settled(world)
    await asyncio.sleep(5.0)
    world.kill("p")
    world.log.faults.heal()
    world.start("q")
    await asyncio.sleep(30)
    assert b'"mine"' in world.values(world.topics.controls)[0]


@pytest.mark.parametrize("end", ["live", "settled"])
def test_the_stop_of_a_lost_claim_survives_its_planner(end: str) -> None:
    """A lease expires, the stop is not acknowledged, and the planner dies, while the job lives or when it has its result."""

    async def main() -> None:
        async with World(7, homes=1) as world:
            world.options = PlannerSettings(lease_seconds=3.0, attempts=2)
            world.node.seconds = (10.0, 10.0)
            world.start("p")
            world.produce(b'{"prompt": "a", "id": "mine"}')
            await world.until(lambda: any(b'"step_claimed"' in value for value in world.values(world.topics.job_events)))
            world.log.faults.away[world.topics.controls] = 0.0
            if end == "live":
                await world.until(lambda: any(b"lease_expired" in value for value in world.values(world.topics.job_events)))
            else:
                await settled(world)
                await asyncio.sleep(3.0)
            world.kill("p")
            world.log.faults.heal()
            world.start("q")
            await asyncio.sleep(30)
            stops = [json.loads(value) for value in world.values(world.topics.controls)]
            assert any(stop["job"] == "mine" and stop["attempt"] == 1 and "claim" not in stop for stop in stops)

    run(main())


@simulated
async def test_a_renewed_claim_that_nobody_knows_is_stopped(world: World) -> None:
    """Whatever became of the stop that was meant for it; one that stands is not, also by a planner that has just taken over."""
    world.node.seconds = (9.0, 9.0)
    world.start("p")
    world.produce(b'{"prompt": "a", "id": "mine"}')
    await world.until(lambda: any(b'"step_claimed"' in value for value in world.values(world.topics.job_events)))
    stands = ClaimsRenewed(node="node-0", claims=("node-0-1", "node-0-99"), mailbox=1)
    for name in ("q", "r"):
        world.outcome(stands)
        await asyncio.sleep(0.5)
        world.start(name)
        await asyncio.sleep(2.0)
    told = [json.loads(record.value or b"") for record in world.log.existing(TopicPartition(world.topics.controls, 1)).records]
    assert told
    assert all(stop == {"type": "stop_claims", "node": "node-0", "claims": ["node-0-99"], "reason": stop["reason"]} for stop in told)


@simulated
async def test_a_planner_that_was_overtaken_disowns_nothing(world: World) -> None:
    """It reads on for a while after its pause, and knows none of its successor's claims."""
    world.start("p")
    await asyncio.sleep(2.0)
    events = TopicPartition(world.topics.job_events, 0)
    world.log.write(events, [Message(events.topic, b"{}", None, 0)])
    world.outcome(ClaimsRenewed(node="n", claims=("n.b.1",), mailbox=1))
    await asyncio.sleep(3.0)
    assert world.values(world.topics.controls) == []


@simulated
async def test_a_deadline_before_its_time_is_told_at_the_deadline(world: World) -> None:
    """Not when the job might have begun; and one whose deadline has passed on arrival at once."""
    world.start("p")
    now = world.clock.wall()
    world.produce(json.dumps({"prompt": "a", "id": "late", "not_before": now + 3_000, "deadline_at": now + 60}).encode())
    world.produce(json.dumps({"prompt": "a", "id": "over", "not_before": now + 3_000, "deadline_at": now - 60}).encode())
    await asyncio.sleep(30.0)
    assert set(world.results()) == {"over"}
    await forward(world)
    await asyncio.sleep(5.0)
    results = {job: Result.model_validate_json(values[0]) for job, values in world.results().items()}
    assert {job: result.status for job, result in results.items()} == {"late": Status.EXPIRED, "over": Status.EXPIRED}
    assert not world.node.steps_seen


async def forward(world: World) -> None:
    """The delay service, played: sends on what is due within a minute, with its mark."""
    for tier in ("30s", "2m", "1s", "5s"):
        for value in world.values(world.topics.delay(tier)):
            delayed = Delayed.model_validate_json(value)
            assert delayed.due_at is not None
            assert delayed.due_at <= world.clock.wall() + 60.0
            await asyncio.sleep(max(0.0, delayed.due_at - world.clock.wall()))
            message = Message(delayed.topic, delayed.value, delayed.key, delayed.partition, (*delayed.headers, ("was-delayed", b"1")))
            world.log.write(TopicPartition(delayed.topic, delayed.partition or 0), [message])


@simulated
async def test_a_delayed_job_keeps_no_headers_that_mean_nothing_here(world: World) -> None:
    """Null values, and traces of other tools that would make the record too large."""
    world.start("p")
    odd = [("x-tenant", None), ("type", None), ("kafka_exception-stacktrace", b"x" * 200_000), ("request-digest", b"0" * 32)]
    body = json.dumps({"prompt": "x" * 59_000, "id": "mine", "not_before": world.clock.wall() + 35}).encode()
    world.produce(body, headers_=odd)  # type: ignore[arg-type]
    world.produce(b'{"prompt": "behind"}')
    await settled(world)
    await forward(world)
    await settled(world, 2)
    assert Result.model_validate_json(world.results()["mine"][0]).status is Status.SUCCEEDED


def check_record(message: Message) -> int:
    """A broker whose `delays.*` take next to nothing."""
    if message.topic.startswith("delays."):
        raise RecordTooLarge
    return sizes.check_record(message)


@simulated
async def test_a_job_that_cannot_be_delayed_ends_at_once(world: World) -> None:
    """The broker takes smaller records than ours may be: its caller is told, its record is kept, and what follows runs."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(memory_producer, "check_record", check_record)
        world.start("p")
        address = (("reply-topic", b"replies.test"), ("reply-partition", b"0"), ("correlation-id", b"c"))
        body = json.dumps({"prompt": "x" * 7_000, "id": "mine", "not_before": world.clock.wall() + 5_000}).encode()
        world.produce(body, headers_=address)
        await settled(world)
        result = Result.model_validate_json(world.results()["mine"][0])
        assert (result.status, result.failure and result.failure.kind.value) == (Status.FAILED, "too_large")
        assert any(b'"mine"' in value for value in world.values("replies.test"))
        [letter] = world.values(world.topics.dead_letters)
        assert DeadLetter.model_validate_json(letter).code == "too_large"
        world.kill("p")
        world.start("q")
        world.produce(b'{"prompt": "behind"}')
        await settled(world, 2)
        await world.check_laws(2)


@simulated
async def test_a_step_that_no_router_can_be_told_of_fails_at_once(world: World) -> None:
    """A job of history whose capability the cluster offers no more does not wait ten minutes for a node."""
    world.start("p")
    world.node.silent = 1.0
    world.log.faults.away["steps.embed.standard"] = 1.0
    world.produce(b'{"texts": ["a"], "id": "mine"}')
    await asyncio.sleep(5.0)
    world.kill("p")
    world.topics = Topics(world.topics.settings.model_copy(update={"capabilities": ("chat",)}))
    world.start("q")
    await settled(world)
    result = Result.model_validate_json(world.results()["mine"][0])
    assert result.failure is not None
    assert result.failure.kind.value == "unsupported"


@simulated
async def test_a_schedule_of_a_capability_that_is_not_offered_is_refused(world: World) -> None:
    """By the planner too, which reads entries that others wrote: nothing waits to be sent, and other schedules run."""
    for name, capability in (("poison", "nosuch"), ("good", None)):
        schedule = Schedule(id=name, cron="* * * * *", job=Job(prompt="x", capability=capability), since=world.clock.wall())
        world.log.write(
            TopicPartition(world.topics.registry, 0), [Message(world.topics.registry, schedule.to_bytes(), registry_key(KIND, name), 0)]
        )
    planner = world.start("p")
    await asyncio.sleep(630.0)
    assert world.finished() == 10
    assert len(planner.outbox) == 0


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNACKNOWLEDGED])
@pytest.mark.parametrize("topic", ["results", "controls", "dead-letters", "delays.1h"])
def test_a_kill_while_something_is_owed_loses_nothing(topic: str, fate: Fate) -> None:
    """Whether the last send arrived or not, a successor sends again what may be missing."""

    async def main() -> None:
        async with World(11, homes=1) as world:
            world.start("p")
            await asyncio.sleep(2.0)
            for number in range(world.log.partition_count(topic)):
                world.log.faults.script(TopicPartition(topic, number), *[fate] * 50)
            make_it_owe(world, 1)
            world.produce(b'{"prompt": "q"}')
            await asyncio.sleep(3.0)
            world.kill("p")
            world.log.faults.heal()
            world.start("q")
            await asyncio.sleep(60.0)
            await world.check_laws(2)
            assert {DeadLetter.model_validate_json(v).offset for v in world.values(world.topics.dead_letters)} == {0}
            assert any(b'"n.b.1"' in value for value in world.values(world.topics.controls))
            assert world.values(world.topics.delay("1h"))

    run(main())


@simulated
async def test_a_claim_of_a_mailbox_that_is_not_there_is_its_own_affair(world: World) -> None:
    """The stop that it would need can go nowhere, which is said; an attempt that it takes part in goes on."""
    planner = world.start("p")
    await asyncio.sleep(2.0)
    world.outcome(claimed(world, mailbox=999))
    world.outcome(
        StepFailed.model_validate({"job": "gone", "step": "5" * 32, "attempt": 1, "failure": {"kind": "internal", "message": "x"}})
    )
    world.produce(b'{"prompt": "q"}')
    await settled(world)
    assert planner.readiness().ready
