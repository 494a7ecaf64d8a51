"""The whole worker with an endpoint that has one place: no load begins while a call runs of the model that it would put out."""

from __future__ import annotations

from services.worker.backends.base import BackendProbe
from shared.contracts.node import NodeModel
from shared.contracts.outcome import StepSucceeded
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import World, play, step


class OnePlace(ScriptedBackend):
    """It manages its models; the last one that was asked is in memory."""

    async def probe(self) -> BackendProbe:
        return BackendProbe(version="0.34.0", manages=True)

    async def models(self) -> tuple[NodeModel, ...]:
        last = self.calls[-1].model if self.calls else "small"
        return tuple(NodeModel(name=name, resident=name == last) for name in self.known)


def test_a_swap_waits_for_what_runs() -> None:
    """A B A, three slots: the second A goes before B, B waits for both, and no place is offered meanwhile."""

    async def scenario(world: World) -> None:
        backend = OnePlace(Script(pause=1.0))
        async with world.worker(backend, slots=3, most_models=1):
            world.presence("r")
            world.route(step(1))
            await world.until(lambda: backend.running == 1)
            world.route(step(2, model="other"), step(3))
            await world.until(lambda: backend.running == 2)
            await world.until(lambda: world.credits()[-1].running == 2)
            assert world.credits()[-1].offers.get("r", 0) == 0
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 3)
            assert [(call.step.job, call.model) for call in backend.calls] == [("j1", "small"), ("j3", "small"), ("j2", "other")]
            assert backend.most_running == 2

    play(scenario)
