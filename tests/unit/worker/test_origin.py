"""What an outcome says of the model that a node has registered: its file, its window; and what a call is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from shared.contracts.failure import FailureKind
from shared.contracts.node import NodeModel
from shared.contracts.outcome import StepFailed, StepSucceeded
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import World, play, step


@dataclass
class Registering(ScriptedBackend):
    """Says this of its one model."""

    said: dict[str, Any] | None = None

    async def models(self) -> tuple[NodeModel, ...]:
        return (NodeModel(name="small", **(self.said or {})),)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"digest": "d1", "quantisation": "Q4_K_M"}, ("d1", "Q4_K_M")),
        ({"quantisation": "Q8_0"}, (None, "Q8_0")),
        ({}, (None, None)),
    ],
)
def test_an_answer_names_the_file_that_gave_it(said: dict[str, Any], told: tuple[str | None, str | None]) -> None:
    """As the endpoint tells it; nothing is made up where it does not."""

    async def scenario(world: World) -> None:
        async with world.worker(Registering(said=said)):
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            answer = world.outcomes(StepSucceeded)[0].answer
            assert (answer.model, answer.digest, answer.quantisation) == ("small", *told)

    play(scenario)


@pytest.mark.parametrize(("abilities", "thinks"), [({"thinking": True}, True), ({"thinking": False}, False), ({}, False)])
def test_a_call_knows_whether_its_model_thinks(abilities: dict[str, bool], thinks: bool) -> None:
    """An endpoint refuses the wish where it cannot be granted: what is not said is not asked for."""

    async def scenario(world: World) -> None:
        backend = Registering(said={"abilities": abilities})
        async with world.worker(backend):
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            assert [call.thinks for call in backend.calls] == [thinks]

    play(scenario)


@pytest.mark.parametrize(("said", "window"), [({"window": 4_096, "context_length": 131_072}, 4_096), ({"context_length": 131_072}, None)])
def test_a_refused_prompt_tells_the_window_and_never_the_models_maximum(said: dict[str, Any], window: int | None) -> None:
    """A model may be loaded with less than it could have: nodes with more than that are to be asked next, not nodes with more than all."""

    async def scenario(world: World) -> None:
        async with world.worker(Registering(Script(failure=FailureKind.CONTEXT_LENGTH), said=said)):
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            failure = world.outcomes(StepFailed)[0].failure
            assert (failure.kind, failure.window) == (FailureKind.CONTEXT_LENGTH, window)

    play(scenario)
