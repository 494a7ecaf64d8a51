"""What judges say, through planners that die: the registry holds what history holds, no verdict twice, and no word of a job."""

from __future__ import annotations

import asyncio
import json

import pytest

from infra.lab.virtual_loop import run
from shared.agents.beliefs import TELL_SECONDS, Beliefs, Judgement
from shared.agents.table import Declarations
from shared.contracts.agents import ModelCard, QueryKind
from shared.contracts.beliefs import KIND
from shared.contracts.chat import Answer
from shared.contracts.event import JobAccepted, JobSettled
from shared.contracts.step import Step
from shared.kafka.port import Message, TopicPartition
from shared.processing.registry import registry_key
from tests.support.planner_world import World

HOMES, JOBS = 2, 24


def said(step: Step, _: int) -> str | Answer:
    """A model that is right as often as its judge, who looks at the end of what it was asked, says so."""
    if step.agent == "critic":
        return json.dumps({"quote": "secret answer to this", "score": 5 if "even" in step.messages[-1].content else 1})
    return Answer(text=f"secret answer to this: {step.messages[-1].content}", model=step.model)


def submit(world: World, numbers: range) -> None:
    for number in numbers:
        kind = "Write a python function" if number % 3 else "Write a poem about love"
        job = {
            "id": f"j{number}",
            "tenant": "acme",
            "prompt": f"{kind} {'odd' if number % 2 else 'even'}",
            "model": "m",
            "pattern": "critic",
        }
        world.produce(json.dumps({**job, "input": {"rounds": 0}}).encode(), key=f"acme/j{number}".encode(), home=number % HOMES)


def begin() -> World:
    world = World(homes=HOMES)
    world.node.answer = said
    return world


def told(world: World) -> Beliefs:
    """What a planner that starts now reads."""
    found = Beliefs(HOMES)
    for record in world.log.existing(TopicPartition(world.topics.registry, 0)).records:
        found.on_entry(KIND, (record.key or b"").decode().partition("/")[2], record.value)
        assert not any(word in (record.value or b"") for word in (b"acme", b"secret", b"python", b"j1"))
    return found


def judged(world: World) -> Beliefs:
    """The same of history, written a second time on purpose."""
    found = Beliefs(HOMES)
    for home in range(HOMES):
        for offset, event in enumerate(each for each in world.history(home) if isinstance(each, JobSettled)):
            answer = event.result.answer
            assert answer is not None
            kind: QueryKind = "code" if "python" in answer.text else "creative"
            found.count(home, 0, offset, [Judgement("m:latest", kind, "even" in answer.text)])
    return found


def total(beliefs: Beliefs) -> float:
    return sum(seen.good + seen.bad for seen in beliefs.of("", "m:latest").values())


def same(one: Beliefs, other: Beliefs) -> bool:
    left, right = one.of("", "m:latest"), other.of("", "m:latest")
    return left.keys() == right.keys() and all(
        (left[kind].good, left[kind].bad) == pytest.approx((right[kind].good, right[kind].bad), abs=0.1) for kind in left
    )


@pytest.mark.parametrize("killed_after", [None, 0.3, 2.0, TELL_SECONDS + 2.0])
def test_the_registry_holds_what_history_says(killed_after: float | None) -> None:
    """A planner that dies takes along no more than what it had not told of; its successor goes on, and counts nothing twice."""

    async def body() -> None:
        async with begin() as world:
            world.start("p")
            submit(world, range(JOBS // 2))
            if killed_after is not None:
                await asyncio.sleep(killed_after)
                world.kill("p")
                world.start("q")
            submit(world, range(JOBS // 2, JOBS))
            await world.until(lambda: world.finished() == JOBS)
            await asyncio.sleep(2 * TELL_SECONDS)
            await world.check_laws(JOBS)
            here, there = told(world), judged(world)
            assert total(here) <= total(there) + 0.1
            assert same(here, there) or killed_after in (0.3, 2.0)
            assert total(here) > JOBS / 3

    run(body())


def declare(world: World, name: str, card: ModelCard) -> None:
    entries = Declarations().to_declare("card", name, card, at=0.0, by="admin")
    registry = world.topics.registry
    messages = [Message(registry, value, registry_key("card", entry), 0) for entry, value in entries.items()]
    world.log.write(TopicPartition(registry, 0), messages)


def test_a_planner_that_leaves_tells_before_it_goes_and_the_next_ones_jobs_have_it_pinned() -> None:
    """What a later job chooses by is in its first event."""

    async def body() -> None:
        async with begin() as world:
            world.start("p")
            submit(world, range(JOBS))
            await world.until(lambda: world.finished() == JOBS)
            await world.stop("p")
            known = told(world)
            assert same(known, judged(world))
            declare(world, "mine", ModelCard(model="m", tier="small"))
            world.start("q")
            world.produce(json.dumps({"id": "later", "prompt": "x", "model": "tier:small"}).encode(), home=0)
            await world.until(lambda: world.finished() == JOBS + 1)
            events = [each for home in range(HOMES) for each in world.history(home) if isinstance(each, JobAccepted)]
            [row] = next(event.team.rated for event in events if event.job.endswith("later"))
            assert {kind: belief.good for kind, belief in row.beliefs.items()} == pytest.approx(
                {kind: belief.good for kind, belief in known.of("", "m:latest").items()}, abs=0.1
            )

    run(body())


def test_what_the_registry_does_not_take_is_told_later() -> None:
    async def body() -> None:
        async with begin() as world:
            world.start("p")
            await world.until(lambda: world.log.partition_count(world.topics.registry) == 1)
            await asyncio.sleep(5)
            world.log.faults.away[world.topics.registry] = 1.0
            submit(world, range(JOBS))
            await world.until(lambda: world.finished() == JOBS)
            await asyncio.sleep(3 * TELL_SECONDS)
            assert total(told(world)) == 0.0
            world.log.faults.heal()
            await asyncio.sleep(3 * TELL_SECONDS)
            assert same(told(world), judged(world))

    run(body())
