"""Recaps through planners that die: older turns of a conversation are summed up before the pattern; what cannot be is left out and told."""

from __future__ import annotations

import asyncio

import pytest

from infra.lab.virtual_loop import run
from services.planner.settings import PlannerSettings
from shared.contracts.chat import Answer
from shared.contracts.step import Step
from tests.simulated.test_planner_conversations import SAID, ask, known, known_ended, read, results, step_of, the_law
from tests.support.planner_world import World

RECAP = '{"summary": "they spoke of %d things", "facts": ["fact %d"], "preferences": []}'


def summing_up(world: World) -> None:
    """A model that sums up when it is asked to."""
    plain, times = world.node.answer, iter(range(1, 1_000))

    def answer(step: Step, number: int) -> str | Answer:
        if step.agent != "summarise":
            return plain(step, number)
        time = next(times)
        return RECAP % (time, time)

    world.node.answer = answer


@pytest.mark.parametrize("pattern", ["single", "vote"])
def test_older_turns_are_summed_up(pattern: str) -> None:
    """Before the pattern, as a step of its own; what every model reads stays bounded, the newest turns word for word, and facts add up."""

    async def body() -> None:
        async with World(homes=2, options=PlannerSettings(conversation_tokens=300)) as world:
            summing_up(world)
            world.start("planner")
            for number in range(14):
                ask(world, f"job-{number}", f"question {number} {SAID * 3}", pattern=pattern)
                await world.until(lambda number=number: known_ended(world) == number + 1)  # type: ignore[misc]
            await world.check_laws(14)
            for step in world.node.steps_seen:
                said = await read(world, step)
                assert sum(len(text) for _, text in said) < 4 * (300 + 300) + 1_500
            last = await read(world, step_of(world, "job-13"))
            recaps = sum(step.agent == "summarise" for step in world.node.steps_seen)
            assert recaps >= 3
            own = [step for step in world.node.steps_seen if step.job == "job-13" and step.agent != "summarise"]
            asked = [text for role, text in await read(world, own[0]) if role == "user"]
            assert "question 13" in asked[-1]
            assert last[0][0] == "system"
            assert "fact 1\n" in (await read(world, own[0]))[0][1]
            assert f"they spoke of {recaps} things" in (await read(world, own[0]))[0][1]
            explained = [result.answer.explanation or {} for result in results(world).values() if result.answer]
            assert not any("conversation" in each for each in explained)

    run(body())


def test_what_cannot_be_summed_up_is_left_out_and_told() -> None:
    """Neither a model that writes no summary, nor one that never answers, keeps a job from its answer."""

    async def body() -> None:
        async with World(homes=1, options=PlannerSettings(conversation_tokens=300)) as world:
            world.start("planner")
            for number in range(6):
                ask(world, f"job-{number}", f"question {number} {SAID * 3}")
                await world.until(lambda number=number: known_ended(world) == number + 1)  # type: ignore[misc]
            told = {job: (result.answer.explanation or {}) for job, result in results(world).items() if result.answer}
            left = {job: each["conversation"]["left_out_turns"] for job, each in told.items() if "conversation" in each}
            assert left
            assert set(left) < set(told)
            assert all(each["conversation"]["why"] for each in told.values() if "conversation" in each)
            for step in world.node.steps_seen:
                assert step.agent != "chat" or len(await read(world, step)) <= 9

    run(body())


def test_a_recap_survives_its_planner() -> None:
    """Killed at every moment of a turn that sums up first: one summary, one answer, one turn added."""

    async def body(after: float) -> None:
        async with World(homes=1, options=PlannerSettings(conversation_tokens=300)) as world:
            summing_up(world)
            world.node.seconds = (0.2, 0.2)
            world.start("planner")
            number = 0
            while not any(step.agent == "summarise" for step in world.node.steps_seen):
                ask(world, f"job-{number}", f"question {number} {SAID * 3}")
                number += 1
                await asyncio.sleep(after)
                world.kill("planner")
                world.start("planner")
                await world.until(lambda number=number: known_ended(world) == number)  # type: ignore[misc]
            await world.check_laws(number)
            the_law(world)
            assert known(world).memory is not None

    for tenth in range(12):
        run(body(tenth / 15))
