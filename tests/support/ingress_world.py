"""A whole ingress on a stage in real time, on any log, with a fake planner and registered nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.ingress.app import Ingress
from services.ingress.replies.register import Guest
from services.ingress.settings import IngressSettings
from shared.clock import SystemClock
from shared.clock import until as clock_until
from shared.contracts.headers import envelope
from shared.contracts.job import Job
from shared.contracts.node import Node, NodeModel
from shared.contracts.result import Result
from shared.kafka.port import Log, Message
from shared.patterns import BUILT_IN
from shared.processing.provision import ensure_topics
from shared.topics import Topics, TopicSettings
from tests.support.fake_planner import Planner, Script, planning
from tests.support.stage import Stage

BARE = [name for name, pattern in BUILT_IN.current.items() if pattern.takes_bare_prompt and name != "single"]
"""Patterns that a model `tutti/<name>` stands for."""
QUICK: dict[str, Any] = {
    "sweep_seconds": 0.02,
    "backlog_seconds": 0.05,
    "flush_seconds": 0.02,
    "events_pause_seconds": 0.0,
    "no_node_wait_seconds": 0.1,
    "accept_seconds": 60.0,
}
"""Settings that make tests fast. A write waits for as long as a test may take: many requests are read before the first is written, and on a
busy machine that takes seconds. Tests without Kafka set less.
"""


class World(Stage):
    """Ingresses, and who answers them. `client` speaks to the first one in process."""

    log: Any
    """In memory, or a real one."""
    planner: Planner
    ingress: Ingress
    client: httpx.AsyncClient

    def __init__(self, log: Log | None = None, prefix: str = "") -> None:
        super().__init__(TopicSettings(prefix=prefix), clock=SystemClock(), log=log)

    def process(self, name: str) -> Log:
        """No process is killed here."""
        return self.log


def opening(stage: Stage, instance: str = "test-1", *, grace_seconds: float = 3.0, **settings: Any) -> Ingress:
    """An ingress of a stage, not begun yet."""
    return Ingress(stage.environment(instance, grace_seconds=grace_seconds), IngressSettings(**{**QUICK, **settings}))


async def until(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    """Poll until `condition` holds. Fails after `seconds`."""
    assert await clock_until(SystemClock(), condition, seconds, 0.005), f"not within {seconds} s: {what}"


def node(name: str = "node-1", *models: str, **fields: Any) -> Node:
    """A registration with these models."""
    found = tuple(NodeModel(name=model) for model in (models or ("tiny:1",)))
    return Node(**{"id": name, "boot": "b", "mailbox": 0, "backend": "ollama", "models": found, "at": 0.0, **fields})


async def register(log: Log, topics: Topics, *nodes: Node) -> None:
    """Put nodes into the registry."""
    producer = await log.producer(client_id="test-nodes")
    await producer.send_many([Message(topics.nodes, found.to_bytes(), found.id.encode(), 0, envelope("node")) for found in nodes])
    await producer.close()


@asynccontextmanager
async def running(ingress: Ingress) -> AsyncIterator[httpx.AsyncClient]:
    """The ingress at work; stopped in order at the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(ingress.run(stop))
    try:
        positioned = ingress.door.events.tail.positioned
        await until(lambda: (ingress.door.opened.is_set() and positioned.is_set()) or task.done(), "opened", 20)
        if task.done():
            task.result()
        transport = httpx.ASGITransport(app=ingress.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


@asynccontextmanager
async def world(
    log: Log | None = None,
    *,
    script: Callable[[Job], Script] | None = None,
    nodes: tuple[Node, ...] | None = None,
    prefix: str = "",
    settings: dict[str, Any] | None = None,
) -> AsyncIterator[World]:
    """Topics (in memory, unless a log is given), a registered node with model `tiny:1`, a fake planner and an ingress, all running."""
    at = World(log, prefix)
    await ensure_topics(at.log, at.topics)
    registered = (node(),) if nodes is None else nodes
    await register(at.log, at.topics, *registered)
    at.ingress = opening(at, **(settings or {}))
    async with planning(at.log, at.topics, at.clock, script) as at.planner, running(at.ingress) as at.client:
        expected, door = {found.id for found in registered}, at.ingress.door
        await until(lambda: {found.id for found in door.registry.table} == expected and door.registry.complete, "nodes", 20)
        await until(door.access.complete, "keys", 20)
        yield at


async def inline(_guest: Guest, result: Result) -> Result:
    """What makes an answer whole that came inside its record."""
    return result
