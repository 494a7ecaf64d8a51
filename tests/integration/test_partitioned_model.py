"""Promise: a model that llama.cpp splits over two RPC servers is one node, which loses it when one of them dies and has it back with it.

How: llama.cpp's own servers as `make ollama` installs them, a tiny model, all on this machine; the whole worker, its log in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.lab.ollama_build import tiny_model
from infra.lab.rpc_group import RpcGroup
from infra.native.errors import NativeError
from infra.native.settings import NativeSettings
from services.worker.backends.choice import backend_of
from services.worker.backends.members import answers
from services.worker.settings import WorkerSettings
from shared.contracts.chat import Options
from shared.contracts.outcome import StepFailed, StepSucceeded
from shared.processing.provision import ensure_topics
from tests.support.native import missing
from tests.unit.worker.world import World, step

pytestmark = pytest.mark.ollama

HEARTBEAT = 10.0


@pytest.fixture
def group(tmp_path: Path) -> Iterator[RpcGroup]:
    model = tmp_path / "tiny.gguf"
    tiny_model.write(model, 0)
    try:
        made = RpcGroup(NativeSettings().cache_directory, tmp_path, model)
        made.start()
    except NativeError as error:
        missing("ollama", error.message)
    yield made
    made.stop()


async def test_a_group_is_a_node_that_lives_and_dies_with_its_members(group: RpcGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers; a member is killed; nothing is offered within a heartbeat, though the head says that it has the model; all are back."""
    for name, value in group.environment.items():
        monkeypatch.setenv(name, value)
    world = World()
    await ensure_topics(world.log, world.topics)
    async with world.worker(backend_of(WorkerSettings(), world.clock), slots=1) as worker:
        node = world.nodes()[-1]
        assert [model.name for model in node.models] == ["tiny"]
        assert (node.hardware.members, node.hardware.vram_bytes, node.capabilities[0]) == (2, 2 * 2**30, "chat")
        await answered(world, 1)
        for _ in range(10):  # as a minute's probes: they leave nobody in the members' lines
            assert await asyncio.to_thread(answers, group.addresses[0])
        await answered(world, 2)

        await asyncio.to_thread(group.members[1].kill)
        await world.until(lambda: not world.nodes()[-1].reachable, seconds=HEARTBEAT)
        assert group.head.pid() is not None
        assert group.addresses[1] in world.nodes()[-1].advice[0].text
        await world.until(lambda: world.credits()[-1].offers == {}, seconds=2.0)
        assert not worker.service.readiness().ready

        await asyncio.to_thread(group.keep)
        await world.until(lambda: world.nodes()[-1].reachable, seconds=HEARTBEAT)
        await answered(world, 3)
    assert world.outcomes(StepFailed) == []


async def answered(world: World, number: int) -> None:
    world.presence("router-1", 1)
    await world.until(lambda: bool(world.credits()[-1].offers), seconds=5.0)
    world.route(step(number, model="tiny", options=Options(max_tokens=8)))
    await world.until(lambda: len(world.outcomes(StepSucceeded)) == number, seconds=20.0)
