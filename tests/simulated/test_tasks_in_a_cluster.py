"""Tasks on models over virtual time: a pull goes on whatever dies, nothing of it is fetched twice, and answers do not wait for it."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from shared.contracts.result import Result, Status
from shared.kafka.port import Message, TopicPartition
from shared.topics import partition_of
from tests.support.cluster import nodes, settings
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.processes import run
from tests.support.cluster.world import World

SIZE = 2_000_000_000
PULL_SECONDS = 20.0
STARTED = ("planner-1", "planner-2", "router-1", "delay-1", *settings.WORKERS)
SEEDS = range(4)


def submit(world: World, name: str, **job: Any) -> None:
    home = TopicPartition("jobs.standard", partition_of(name.encode(), settings.HOMES))
    world.log.write(home, [Message(home.topic, json.dumps({"id": name, **job}).encode(), name.encode(), home.partition)])


def task(world: World, name: str, action: str, *on: str, **more: Any) -> None:
    targets = [{"node": node} for node in on]
    given = {"action": action, "name": nodes.PULLED, "nodes": targets, **more}
    submit(world, name, prompt=f"{action} it", pattern="models", input=given, deadline_seconds=3_600.0)


def result(world: World, name: str) -> Result | None:
    for number in range(world.topics.partitions("other")):
        for record in world.log.existing(TopicPartition(world.topics.results, number)).records:
            if (record.key or b"").endswith(name.encode()) and record.value:
                return Result.model_validate_json(record.value)
    return None


async def ended(world: World, name: str, seconds: float) -> Result:
    assert await world.until(lambda: result(world, name) is not None, seconds), f"{name} has not ended"
    found = result(world, name)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pull_goes_on_whatever_dies(seed: int, quiet: None) -> None:
    """Workers, their servers, planners and routers, again and again in the middle of it, on two nodes at once."""

    async def main() -> None:
        chance = Random(seed)
        async with World(seed, FaultMix()) as world:
            for name in STARTED:
                world.start(name)
            assert await world.until(lambda: all(one.readiness().ready for one in world.instances.values()), 60.0)
            task(world, "pull", "pull", "worker-1", "worker-2")
            submit(world, "answer", prompt="q")
            began = world.clock.monotonic()
            assert (await ended(world, "answer", PULL_SECONDS / 2)).status is Status.SUCCEEDED
            while world.clock.monotonic() - began < PULL_SECONDS * 3 / 4:
                await world.until(lambda: False, chance.uniform(1.0, 6.0))
                victim = chance.choice(STARTED)
                if victim in settings.WORKERS and chance.random() < 0.5:
                    await world.nodes[victim].ollama.restart()
                elif victim in world.instances:
                    world.kill(victim)
                    world.start(victim)
            found = await ended(world, "pull", 600.0)
            assert found.status is Status.SUCCEEDED, found.failure
            assert found.usage.calls == found.usage.wasted_calls == 0
            assert [world.nodes[name].ollama.truth.pulled_bytes for name in settings.WORKERS[:3]] == [SIZE, SIZE, 0]
            submit(world, "asked", prompt="q", model=nodes.PULLED)
            assert (await ended(world, "asked", 60.0)).status is Status.SUCCEEDED

    run(main())


def test_a_node_that_is_away_is_waited_for_and_the_rest_is_done_meanwhile(quiet: None) -> None:
    async def main() -> None:
        async with World(1, FaultMix()) as world:
            for name in STARTED:
                if name != "worker-2":
                    world.start(name)
            assert await world.until(lambda: all(one.readiness().ready for one in world.instances.values()), 60.0)
            task(world, "pull", "pull", "worker-1", "worker-2")
            assert await world.until(lambda: world.nodes["worker-1"].ollama.truth.pulled_bytes == SIZE, 60.0)
            assert not await world.until(lambda: result(world, "pull") is not None, 30.0)
            world.start("worker-2")
            assert (await ended(world, "pull", 120.0)).status is Status.SUCCEEDED
            task(world, "copy", "copy", "worker-1", "worker-2", to="mine")
            assert (await ended(world, "copy", 60.0)).status is Status.SUCCEEDED
            task(world, "delete", "delete", "worker-1", "worker-2")
            assert (await ended(world, "delete", 60.0)).status is Status.SUCCEEDED
            here = [{model.name for model in world.nodes[name].ollama.parameters.models} for name in ("worker-1", "worker-2")]
            assert here == [{nodes.MODEL, "mine"}] * 2

    run(main())
