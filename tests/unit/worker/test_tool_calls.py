"""Tool calls of an answer: how many, and whether any, is the step's wish, whatever the endpoint makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.worker.backends.base import Completion, Delta, ModelCall
from shared.contracts.chat import Answer
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepFailed, StepSucceeded
from shared.contracts.usage import Usage
from tests.unit.worker.scripted_backend import ScriptedBackend
from tests.unit.worker.world import World, play, step


class Caller(ScriptedBackend):
    """Calls each tool that it is given, or none."""

    calls_none = False

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        tools = () if self.calls_none else call.step.tools
        calls = tuple({"id": f"c{number}", "type": "function", "function": tool["function"]} for number, tool in enumerate(tools))
        yield Completion(Answer(text="" if calls else "no", tool_calls=calls), Usage(calls=1))


@pytest.mark.parametrize(("several", "ids"), [(True, ["c0", "c1"]), (False, ["c0"])])
def test_of_calls_the_first_counts_where_one_is_allowed(several: bool, ids: list[str]) -> None:
    """Whatever the endpoint makes of the wish."""

    async def scenario(world: World) -> None:
        async with world.worker(Caller()):
            tools = tuple({"type": "function", "function": {"name": name, "arguments": "{}"}} for name in "fg")
            world.route(step(1, tools=tools, parallel_tool_calls=several))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            assert [call["id"] for call in world.outcomes(StepSucceeded)[0].answer.tool_calls] == ids

    play(scenario)


def test_a_required_call_that_does_not_come_is_a_failure() -> None:
    """Never an answer that says something else: another attempt may do better."""

    async def scenario(world: World) -> None:
        backend = Caller()
        backend.calls_none = True
        async with world.worker(backend):
            world.route(step(1, tools=({"type": "function", "function": {"name": "f"}},), tool_choice="required"))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            assert world.outcomes(StepFailed)[0].failure.kind is FailureKind.INVALID_OUTPUT

    play(scenario)
