"""What an outcome says of the model that a node has registered: its file; and what a call is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from shared.contracts.node import NodeModel
from shared.contracts.outcome import StepSucceeded
from tests.unit.worker.scripted_backend import ScriptedBackend
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
