"""Whom no settle event will tell: he has a final, whatever dies (simulated, virtual time). The traces of `tests/model/callers.py`."""

from __future__ import annotations

import asyncio

import pytest

from shared.contracts.event import JobAccepted, JobSettled, PlannerStarted
from shared.contracts.headers import envelope
from shared.contracts.reply import Final
from shared.contracts.result import Result, Status
from shared.kafka.port import Message, TopicPartition
from shared.services import group_of
from tests.support.planner_traces import events, settled, simulated, starts
from tests.support.planner_world import World

MINE, OTHER = b'{"prompt": "a", "id": "mine"}', b'{"prompt": "b", "id": "mine"}'
CALLER = (("reply-topic", b"replies"), ("reply-partition", b"0"), ("correlation-id", b"c"), ("reply-multiplex", b"1"))
READER = (*CALLER, ("reply-reads-events", b"1"))


def finals(world: World) -> list[Result]:
    return [Final.model_validate_json(value).result for value in world.values(world.topics.replies)]


def passed(world: World, offset: int) -> bool:
    """Whether the committed position has passed the record there."""
    committed = world.log.group(group_of("planner", "")).offsets
    return committed.get(TopicPartition("jobs.standard", 0), 0) > offset


async def beside(world: World, body: bytes) -> None:
    """The same id again once its job has ended; the caller's topic takes nothing, and the planner dies."""
    world.start("p")
    world.produce(MINE)
    await settled(world)
    world.log.faults.away[world.topics.replies] = 0.0
    again = world.produce(body, headers_=READER)
    await asyncio.sleep(5.0)
    assert not passed(world, again)
    world.kill("p")
    world.log.faults.heal()
    world.start("p")
    await world.until(lambda: bool(finals(world)))
    await world.until(lambda: passed(world, again))


@simulated
async def test_the_answer_to_a_repeat_is_acknowledged_before_its_record_is_passed(world: World) -> None:
    """No event tells of it, so a successor would not either."""
    await beside(world, MINE)
    assert [final.to_bytes() for final in finals(world)] == next(iter(world.results().values()))


@simulated
async def test_a_refusal_is_acknowledged_before_its_record_is_passed(world: World) -> None:
    """The same of another body under the id."""
    await beside(world, OTHER)
    assert {final.status for final in finals(world)} == {Status.FAILED}


@pytest.mark.parametrize("head", [CALLER, READER])
def test_who_joins_is_told_by_a_successor_too(head: tuple[tuple[str, bytes], ...]) -> None:
    """He is owed a final, unless he reads the settle event himself; that he joined is in history either way."""

    @simulated
    async def trace(world: World) -> None:
        world.node.seconds = (10.0, 10.0)
        world.start("p")
        world.produce(MINE)
        await asyncio.sleep(2.0)
        again = world.produce(MINE, headers_=head)
        await world.until(lambda: passed(world, again))
        assert sum(b'"caller_joined"' in value for value in world.values(world.topics.job_events)) == 1
        world.kill("p")
        world.start("p")
        await settled(world)
        await asyncio.sleep(1.0)
        assert len(finals(world)) == (1 if head == CALLER else 0)

    trace()


@simulated
async def test_who_is_superseded_without_knowing_does_not_pass_a_repeat(world: World) -> None:
    """A zombie's late PlannerStarted and its settle event, both valid: the owner takes the repeat for one of a live job."""
    world.node.silent = 1.0
    world.start("p")
    world.produce(MINE)
    await world.until(lambda: any(isinstance(event, JobAccepted) for event in world.history(0)))
    [accepted] = [event for event in world.history(0) if isinstance(event, JobAccepted)]
    zombie = PlannerStarted(nonce="x", planner="zombie")
    epoch = world.log.write(events(world), [Message(world.topics.job_events, zombie.to_bytes(), None, 0, envelope(zombie.type))])
    result = Result(job=accepted.job, status=Status.CANCELLED, accepted_at=accepted.at, finished_at=accepted.at)
    end = JobSettled(epoch=epoch, job=accepted.job, at=accepted.at, result=result, client_id=True, digest=accepted.digest)
    world.log.write(events(world), [Message(world.topics.job_events, end.to_bytes(), end.job.encode(), 0, envelope(end.type))])
    world.produce(MINE, headers_=READER)
    await world.until(lambda: bool(finals(world)))
    assert {final.status for final in finals(world)} == {Status.CANCELLED}
    assert starts(world) == 3


@simulated
async def test_results_gather_where_whoever_waits_is_told_otherwise(world: World) -> None:
    """They may come a tenth of a second later; all others come at once."""
    world.node.seconds = (0.0, 0.0)
    world.start("p")
    await world.until(lambda: starts(world) == 1)
    for head, shortest in (((), 0.0), (READER, 0.1)):
        before = world.finished()
        world.produce(b'{"prompt": "q"}', headers_=head)
        await asyncio.sleep(shortest)
        assert world.finished() == before
        await asyncio.sleep(0.1)
        assert world.finished() == before + 1
    assert not finals(world)
