"""Agents are capabilities (simulated): only workers that serve one take its steps, more of them share its backlog, nobody waits for it."""

from __future__ import annotations

import json

import pytest

from services.worker.settings import WorkerSettings
from shared.contracts.outcome import OUTCOME, StepClaimed
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import Message, TopicPartition
from shared.topics import Topics, partition_of
from tests.support.cluster import nodes, settings
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.processes import run
from tests.support.cluster.world import World

JOBS = 60
STARTED = ("planner-1", "router-1", *settings.WORKERS)
SLOTS = 2
SECONDS = 0.5
"""Of every answer: ten words at 20 tokens/s."""
SOON = 6 * SECONDS
"""For one that finds a free slot."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Worker → what it serves; to be filled before the world starts. Each has two slots, and every answer takes as long."""
    by_name: dict[str, str] = {}
    plain = settings.worker

    def worker(name: str, mix: FaultMix) -> WorkerSettings:
        return plain(name, mix).model_copy(update={"slots": SLOTS, "agents": (by_name[name],)})

    known = settings.topics().settings.model_copy(update={"capabilities": ("chat", "research")})
    monkeypatch.setattr(settings, "worker", worker)
    monkeypatch.setattr(settings, "topics", lambda: Topics(known))
    monkeypatch.setattr(nodes, "PARAMETERS", nodes.PARAMETERS.with_(answer_tokens=(10, 10), jitter=0.0))
    return by_name


def ask(world: World, capability: str, count: int) -> None:
    for number in range(count):
        name = f"{capability}-{number}"
        job = json.dumps({"id": name, "prompt": "q", "capability": capability}).encode()
        home = TopicPartition("jobs.standard", partition_of(name.encode(), settings.HOMES))
        world.log.write(home, [Message(home.topic, job, name.encode(), home.partition)])


def results(world: World, capability: str) -> list[MemoryRecord]:
    """Of jobs that need it."""
    partitions = [TopicPartition(world.topics.results, number) for number in range(world.topics.partitions("other"))]
    found = [record for one in partitions for record in world.log.existing(one).records if isinstance(record, MemoryRecord)]
    return [record for record in found if (record.key or b"").startswith(capability.encode())]


def takers(world: World, capability: str) -> set[str]:
    """Nodes that claimed its steps."""
    found = set()
    for home in range(settings.HOMES):
        for record in world.log.existing(TopicPartition(world.topics.outcomes, home)).records:
            said = OUTCOME.validate_json(record.value or b"")
            if isinstance(said, StepClaimed) and said.job.startswith(capability):
                found.add(said.node)
    return found


def drain(served: dict[str, str], capability: str, *serving: str) -> float:
    """Seconds until a backlog of `capability` is worked off by these; one job of the other one, sent amid it, is not kept waiting."""
    other = {"research": "chat", "chat": "research"}[capability]
    served.clear()
    served.update({name: capability if name in serving else other for name in settings.WORKERS})

    async def main() -> float:
        async with World(5, FaultMix()) as world:
            for name in STARTED:
                world.start(name)
            assert await world.until(lambda: all(one.readiness().ready for one in world.instances.values()), 60.0)
            began = world.clock.monotonic()
            ask(world, capability, JOBS)
            assert await world.until(lambda: len(results(world, capability)) >= JOBS // 4, 60.0)
            ask(world, other, 1)
            assert await world.until(lambda: bool(results(world, other)), SOON), "it waited for the backlog"
            assert len(results(world, capability)) < JOBS - SLOTS * len(serving), "the backlog was gone"
            assert await world.until(lambda: len(results(world, capability)) == JOBS, 120.0)
            took = world.clock.monotonic() - began
            assert all(b'"succeeded"' in (one.value or b"") for one in results(world, capability) + results(world, other))
            assert takers(world, capability) == set(serving)
            assert takers(world, other) <= set(settings.WORKERS) - set(serving)
            return took

    return run(main())


def test_a_second_worker_of_an_agent_halves_its_backlog(served: dict[str, str]) -> None:
    """Research is taken by research workers alone, by two in half the time, and chat goes on beside it."""
    alone = drain(served, "research", "worker-1")
    assert alone >= JOBS * SECONDS / SLOTS, "the backlog was none"
    both = drain(served, "research", "worker-1", "worker-2")
    assert both / alone == pytest.approx(0.5, rel=0.15)


def test_an_agent_does_not_wait_for_a_chat_backlog(served: dict[str, str]) -> None:
    """The reverse: one research job amid queued chats."""
    drain(served, "chat", "worker-3")
