"""Permits of a tool (simulated): at most so many use it at once in all the cluster, tenants take turns, a killed holder's comes back."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.worker.settings import WorkerSettings
from services.worker.tools.backend import ToolsBackend
from services.worker.tools.calling import ToolCall
from services.worker.tools.declared import ToolsFile
from services.worker.tools.nodes import nodes_of
from shared.agents.table import Declarations
from shared.clock import LoopClock
from shared.contracts.agents import Tool
from shared.contracts.result import Result, Status
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import Message, TopicPartition
from shared.topics import Topics, partition_of
from tests.support.cluster import processes, settings, world
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.nodes import Endpoint, Node
from tests.support.cluster.processes import State, run
from tests.support.cluster.world import World

PERMITS = 2
SECONDS = 0.5
"""Of one call."""
HOLDER = "worker-1"
FILE = ToolsFile.model_validate({"tools": {"slow": {"kind": "calculator", "at_once": PERMITS, "seconds": 10}}})


@dataclass
class Slow:
    """The tool, as the outside sees it: who uses it, how often each call came."""

    running: dict[int, Any] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    most: int = 0

    async def call(self, call: ToolCall) -> str:
        key = len(self.calls) * 1_000 + self.calls[call.step]
        self.calls[call.step] += 1
        self.running[key] = processes._CURRENT.get()
        self.most = max(self.most, sum(process.state is State.RUNNING for process in self.running.values()))
        try:
            await LoopClock().sleep(SECONDS)
        finally:
            self.running.pop(key, None)
        return "done"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Workers serve the tool instead of a model."""
    tool, plain = Slow(), settings.worker
    known = settings.topics().settings.model_copy(update={"capabilities": ("chat", "tools")})

    def worker(name: str, mix: FaultMix) -> WorkerSettings:
        [own] = nodes_of(FILE, plain(name, mix)).values()
        return own

    def backend(_node: Node, given: WorkerSettings) -> tuple[ToolsBackend, Endpoint]:
        made = ToolsBackend(FILE, given, LoopClock())
        made._tools["slow"] = tool.call
        return made, Endpoint(_node)

    monkeypatch.setattr(settings, "worker", worker)
    monkeypatch.setattr(settings, "topics", lambda: Topics(known))
    monkeypatch.setattr(world, "backend_on", backend)
    return tool


def declare(at: World, *, idempotent: bool) -> None:
    for key, value in Declarations().to_declare("tool", "slow", Tool(idempotent=idempotent), at=0.0, by="").items():
        assert value is not None
        at._declare("tool", key, value)


def ask(at: World, tenant: str, count: int) -> None:
    for number in range(count):
        name = f"{tenant}-{number}"
        job = {"id": name, "tenant": tenant, "prompt": json.dumps({"n": number}), "pattern": "tools", "input": {"tool": "slow"}}
        home = TopicPartition("jobs.standard", partition_of(name.encode(), settings.HOMES))
        at.log.write(home, [Message(home.topic, json.dumps(job).encode(), name.encode(), home.partition)])


def results(at: World) -> list[Result]:
    """In order of their times."""
    partitions = [TopicPartition(at.topics.results, number) for number in range(at.topics.partitions("other"))]
    records = [record for one in partitions for record in at.log.existing(one).records if isinstance(record, MemoryRecord)]
    newest = {record.key: record for record in records}
    found = [Result.model_validate_json(record.value or b"") for record in newest.values()]
    return sorted(found, key=lambda result: result.finished_at)


async def ready(at: World, *, idempotent: bool = True, planners: tuple[str, ...] = ("planner-1",)) -> None:
    declare(at, idempotent=idempotent)
    for name in (*planners, "router-1", HOLDER):
        at.start(name)
    assert await at.until(lambda: all(one.readiness().ready for one in at.instances.values()), 60.0)


def test_permits_hold_and_tenants_take_turns(slow: Slow) -> None:
    """A tenant with a few calls does not wait for another's many; never more at once than there are permits, and they are used."""

    async def main() -> None:
        async with World(7, FaultMix()) as at:
            await ready(at)
            began = at.clock.monotonic()
            ask(at, "red", 40)
            await asyncio.sleep(2.0)
            ask(at, "blue", 4)
            assert await at.until(lambda: len(results(at)) == 44, 120.0)
            took = at.clock.monotonic() - began
            order = [result.tenant for result in results(at)]
            assert {result.status for result in results(at)} == {Status.SUCCEEDED}
            assert max(place for place, tenant in enumerate(order) if tenant == "blue") < 30, order
            assert slow.most == PERMITS
            assert took < 1.6 * 44 * SECONDS / PERMITS, "permits lay idle"

    run(main())


@pytest.mark.parametrize("way", ["killed", "paused", "taken over"])
def test_permits_come_back(slow: Slow, way: str) -> None:
    """Of a process that is killed, or stands still, amid calls, or that another succeeds: never more than there are, and all jobs end."""

    async def main() -> None:
        async with World(3, FaultMix()) as at:
            await ready(at)
            ask(at, "red", 30)
            assert await at.until(lambda: len(results(at)) >= 5, 60.0)
            if way == "taken over":
                at.succeed(HOLDER)
            else:
                (at.kill if way == "killed" else at.pause)(HOLDER)
                await asyncio.sleep(1.0)
                (at.start if way == "killed" else lambda name: at.wake(at.instances[name]))(HOLDER)
            assert await at.until(lambda: len(results(at)) == 30, 120.0)
            assert {result.status for result in results(at)} == {Status.SUCCEEDED}
            assert slow.most == PERMITS

    run(main())


@pytest.mark.parametrize("seed", range(12))
def test_what_must_not_be_done_twice_is_not(slow: Slow, seed: int) -> None:
    """Whoever is killed, planners and holders, again and again: no call comes twice, and whoever cannot be sure of his is told so."""

    async def main() -> None:
        async with World(seed, FaultMix()) as at:
            await ready(at, idempotent=False, planners=settings.PLANNERS)
            ask(at, "red", 40)
            for _ in range(5):
                await asyncio.sleep(at.random.uniform(0.5, 3.0))
                name = at.random.choice((*settings.PLANNERS, HOLDER))
                at.kill(name)
                await asyncio.sleep(at.random.uniform(0.0, 2.0))
                at.start(name)
            assert await at.until(lambda: len(results(at)) == 40, 240.0)
            twice = {step: count for step, count in slow.calls.items() if count > 1}
            assert twice == {}
            failed = [result.failure for result in results(at) if result.failure is not None]
            assert all("must not be done twice" in failure.message for failure in failed), failed
            assert len(failed) < 30

    run(main())
