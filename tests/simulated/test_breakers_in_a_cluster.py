"""A node that fails in a whole simulated cluster under load: no job fails, it is left alone, and used again when it works.

Simulated: no model answers here, and time is virtual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from infra.lab.simulators.ollama.parameters import FailureMode, Failures
from services.worker.breakers import Breaker, BreakerPolicy
from services.worker.settings import WorkerSettings
from shared.contracts.node import Node
from shared.contracts.outcome import StepClaimed, StepFailed, StepSucceeded
from shared.contracts.result import Status
from shared.kafka.port import TopicPartition
from tests.support.cluster import processes, settings
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.history import Written
from tests.support.cluster.workload import Workload
from tests.support.cluster.world import World

pytestmark = pytest.mark.usefixtures("quiet")

FAILS_AT, HEALS_AT, ENDS_AT = 3.0, 15.0, 30.0
EVERY_SECONDS = 0.065
"""Jobs of about 0.4 s: more than the two small nodes do alone, so that the third, which will fail, has its part."""
BURST = 60
"""Jobs at once, before: each node has the model loaded."""
NODE = "worker-3"
TOLD_SECONDS = 0.1
"""From the third failure to the step that is placed elsewhere."""


class Scene:
    """One run: `breaks` at `FAILS_AT`, `heals` at `HEALS_AT`, jobs all the time."""

    def __init__(self, breaks: Callable[[World], object], heals: Callable[[World], object]) -> None:
        self._breaks, self._heals = breaks, heals

    async def run(self) -> None:
        async with World(1, FaultMix(attempts=4)) as world:
            load = Workload(world, Random(2), 1, 1.0)
            world.start_all()
            await asyncio.sleep(2.0)
            begun = asyncio.get_running_loop().time()
            for load._number in range(1, BURST + 1):
                load._single()
            todo = [(FAILS_AT, self._breaks), (HEALS_AT, self._heals)]
            while (now := asyncio.get_running_loop().time() - begun) < ENDS_AT:
                if todo and now >= todo[0][0]:
                    done = todo.pop(0)[1](world)
                    if asyncio.iscoroutine(done):
                        await done
                load._number += 1
                load._single()
                await asyncio.sleep(EVERY_SECONDS)
            assert await world.until(lambda: len(world.history.results) >= load._number, 60.0)
            self.begun, self.history = begun, world.history
            self.failed = [r for [r] in world.history.results.values() if r.value.status is not Status.SUCCEEDED]
            told = world.log.existing(TopicPartition(world.topics.nodes, 0)).records
            nodes = [Node.model_validate_json(record.value) for record in told if record.value]
            self.broken = [node.id for node in nodes if node.broken or any(model.broken for model in node.models)]
            """Of each record that says so."""

    def outcomes(self, kind: type[StepClaimed | StepFailed | StepSucceeded], *, since: float, until: float = 1e9) -> list[Written]:
        """Of the node, in these seconds of the run."""
        found = [w for w in self.history.outcomes if isinstance(w.value, kind) and w.value.node == NODE]
        return [w for w in found if since <= w.at - self.begun < until]


def played(breaks: Callable[[World], object], heals: Callable[[World], object] = lambda _: None) -> Scene:
    scene = Scene(breaks, heals)
    processes.run(scene.run())
    return scene


def failing(mode: FailureMode) -> Callable[[World], None]:
    return lambda world: world.nodes[NODE].fail(Failures(chances={mode: 1.0}))


def mended(world: World) -> None:
    world.nodes[NODE].fail(Failures())
    world.nodes[NODE].find()


@pytest.mark.parametrize(("mode", "enough"), [(FailureMode.ERROR_500, 2), (FailureMode.MID_STREAM_ERROR, 3)])
def test_a_node_whose_calls_fail_is_left_alone(mode: FailureMode, enough: int) -> None:
    """Errors at once, or breaks after some tokens: after so many nothing is begun there, and no job fails. Mended, it is used again."""
    scene = played(failing(mode), mended)
    assert not scene.failed
    assert set(scene.broken) == {NODE}
    failures = scene.outcomes(StepFailed, since=FAILS_AT, until=HEALS_AT)
    assert not scene.outcomes(StepClaimed, since=failures[enough - 1].at - scene.begun + TOLD_SECONDS, until=HEALS_AT)
    assert len(failures) <= enough + settings.SLOTS[NODE]
    assert scene.outcomes(StepSucceeded, since=ENDS_AT - 5.0)


def test_a_node_that_is_gone_is_left_alone() -> None:
    """Its model server drops everything and refuses connections."""
    scene = played(lambda world: world.nodes[NODE].lose(), mended)
    assert not scene.failed
    assert len(scene.outcomes(StepFailed, since=FAILS_AT, until=HEALS_AT)) <= 3 + settings.SLOTS[NODE]
    assert not scene.outcomes(StepClaimed, since=FAILS_AT + 1.0, until=HEALS_AT)
    assert scene.outcomes(StepSucceeded, since=ENDS_AT - 5.0)


def test_without_breakers_a_node_that_fails_fast_attracts_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: it is always the emptiest. What the test above counts is seen to depend on breakers."""
    monkeypatch.setattr(Breaker, "_strike", lambda *_: False)
    scene = played(failing(FailureMode.ERROR_500))
    assert len(scene.outcomes(StepFailed, since=FAILS_AT, until=HEALS_AT)) > 50


def test_the_policy_of_the_tests_is_that_of_the_settings() -> None:
    assert BreakerPolicy() == BreakerPolicy(
        WorkerSettings().breaker_failures, WorkerSettings().breaker_seconds, WorkerSettings().breaker_longest_seconds
    )
