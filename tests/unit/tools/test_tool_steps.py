"""Tools as a worker serves them: a step is claimed, called within its bounds, answered once, and told apart from chats."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.worker.settings import WorkerSettings
from services.worker.tools.backend import CUT, ToolsBackend
from services.worker.tools.calling import ToolCall
from services.worker.tools.declared import ToolsFile
from shared.clock import LoopClock
from shared.contracts import headers
from shared.contracts.chat import Operation
from shared.contracts.control import BeginStep
from shared.contracts.failure import FailureKind as K
from shared.contracts.outcome import StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.contracts.step import Step
from tests.unit.worker.scripted_backend import ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step

FILE = ToolsFile.model_validate(
    {"tools": {"calculator": {"kind": "calculator", "characters": 100}, "slow": {"kind": "calculator", "seconds": 5, "at_once": 2}}}
)


class Slow:
    """Takes as long as it is told, and counts."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.running = self.most = 0

    async def call(self, call: ToolCall) -> str:
        self.calls.append(call)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await LoopClock().sleep(call.arguments.get("seconds", 1.0))
        finally:
            self.running -= 1
        return "done"


def backend(slow: Slow | None = None, **settings: Any) -> ToolsBackend:
    made = ToolsBackend(FILE, WorkerSettings(**settings), LoopClock())
    made._tools["slow"] = (slow or Slow()).call
    return made


def calling(number: int, tool: str, arguments: str, **changes: Any) -> Step:
    own = {"capability": "tools", "operation": Operation.TOOL, "model": tool, "prompt": arguments, "messages": ()}
    return step(number, **(own | changes))


def count(tool: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("tutti_tool_seconds_count", {"tool": tool, "outcome": outcome}) or 0.0


def test_a_call_is_a_step() -> None:
    """Its result is the answer, cut where it is long; wrong arguments are a failure that another attempt would only repeat."""
    before = count("calculator", "answered"), count("calculator", "bad_request")

    async def scenario(world: World) -> None:
        async with world.worker(backend(), agents=("tools",)):
            arguments = ('{"expression": "6 * 7"}', '{"expression": "10 ** 150"}', '{"expression": "x"}', "[]", "{}")
            world.route(*(calling(number, "calculator", given) for number, given in enumerate(arguments, 1)))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2 and len(world.outcomes(StepFailed)) == 3)
            first, second = sorted(world.outcomes(StepSucceeded), key=lambda done: done.job)
            assert (first.answer.text, first.answer.model, first.usage.calls) == ("42", "calculator", 1)
            assert second.answer.text == "1" + "0" * 99 + CUT
            assert {failed.failure.kind for failed in world.outcomes(StepFailed)} == {K.BAD_REQUEST}

    play(scenario)
    assert (count("calculator", "answered") - before[0], count("calculator", "bad_request") - before[1]) == (2, 3)


def test_a_node_of_tools_serves_nothing_else() -> None:
    """And one of models no tools: routers tell them apart by what they register."""

    async def scenario(world: World) -> None:
        async with world.worker(backend(), node="t.tools", agents=("tools",)), world.worker(ScriptedBackend(), node="models", process="w"):
            served = {node.id: (node.capabilities, {o for model in node.models for o in model.operations}) for node in world.nodes()}
            assert served["t.tools"] == (("tools",), {"tool"})
            assert "tools" not in served["models"][0]
            assert "chat" in served["models"][0]

    play(scenario)


def test_permits_are_slots() -> None:
    """At most so many calls at once, whatever lies in the mailbox; each ends, and nobody's is made twice."""
    slow = Slow()

    async def scenario(world: World) -> None:
        async with world.worker(backend(slow, models=("slow",)), agents=("tools",), slots=2, prefetch_limit=0):
            world.route(*(calling(number, "slow", "{}") for number in range(1, 9)))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 8)

    play(scenario)
    assert (slow.most, len(slow.calls)) == (2, 8)
    assert len({call.step for call in slow.calls}) == 8


def test_a_call_has_so_much_time() -> None:
    """Its permit is free again."""
    slow = Slow()

    async def scenario(world: World) -> None:
        async with world.worker(backend(slow), agents=("tools",), slots=1):
            world.route(calling(1, "slow", '{"seconds": 1000}'), calling(2, "slow", "{}"))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            [failed] = world.outcomes(StepFailed)
            assert (failed.job, failed.failure.kind) == ("j1", K.MODEL_TIMEOUT)
            assert slow.running == 0

    play(scenario)


def test_a_tool_that_is_not_served_here_has_not_begun() -> None:
    """Nor is a model asked by a tool's name, or a tool by a chat."""

    async def scenario(world: World) -> None:
        async with world.worker(backend(), agents=("tools",)):
            world.route(calling(1, "cook", "{}"), calling(2, "calculator", "{}", operation=Operation.CHAT))
            await world.until(lambda: len(world.outcomes(StepFailed)) == 2)
            assert {failed.failure.kind for failed in world.outcomes(StepFailed)} == {K.UNKNOWN_MODEL}

    play(scenario)


def begin(world: World, given: Step, *, node: str = NODE) -> None:
    """The planner's word that the step's claim stands in history."""
    [claim] = [told.claim for told in world.outcomes(StepClaimed) if told.job == given.job]
    said = BeginStep(node=node, job=given.job, step=given.id, attempt=given.attempt, claim=claim)
    world.write(world.topics.controls, 0, said.to_bytes(), headers.envelope(said.type))


def test_what_must_not_be_done_twice_waits_for_its_planner() -> None:
    """It is claimed at once, and begins when its claim stands; told again, or to another node, nothing begins."""
    slow = Slow()

    async def scenario(world: World) -> None:
        async with world.worker(backend(slow), agents=("tools",)):
            given = calling(1, "slow", "{}", idempotent=False)
            world.route(given, calling(2, "slow", "{}", idempotent=False))
            await world.until(lambda: len(world.outcomes(StepClaimed)) == 2)
            await world.clock.sleep(20.0)
            assert slow.calls == []
            begin(world, given, node="another")
            begin(world, given)
            begin(world, given)
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            begin(world, given)
            world.stop_step(calling(2, "slow", "{}"))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            await world.clock.sleep(5.0)
            assert [call.step for call in slow.calls] == [given.id]

    play(scenario)


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_worker_that_leaves_gives_back_what_may_be_done_twice(idempotent: bool) -> None:
    """A call that runs and must not be done again is a failure: nobody may think that it has not begun."""

    async def scenario(world: World) -> None:
        async with world.worker(backend(), agents=("tools",), slots=1, grace_seconds=1.0) as running:
            given = calling(1, "slow", '{"seconds": 4}', idempotent=idempotent)
            world.route(given, calling(2, "slow", "{}", idempotent=False))
            await world.until(lambda: len(world.outcomes(StepClaimed)) == 2)
            begin(world, given)
            await world.until(lambda: running.service.attempts.slots.busy == 1)
            await running.end()
            released = {outcome.job for outcome in world.outcomes(StepReleased)}
            failed = {outcome.job: outcome.failure.kind for outcome in world.outcomes(StepFailed)}
            assert (released, failed) == (({"j1", "j2"}, {}) if idempotent else ({"j2"}, {"j1": K.CANCELLED}))

    play(scenario)
