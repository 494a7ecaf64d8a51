"""A whole ingress on any log, with a fake planner and registered nodes, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from services.ingress.app import Ingress
from services.ingress.replies.register import Guest
from services.ingress.settings import IngressSettings
from shared.clock import Clock, SystemClock
from shared.contracts.headers import envelope
from shared.contracts.job import Job
from shared.contracts.node import Node, NodeModel
from shared.contracts.result import Result
from shared.kafka.port import Log, Message
from shared.patterns import BUILT_IN
from shared.processing.provision import ensure_topics
from shared.service import Environment
from shared.settings import ClusterSettings
from shared.topics import Topics, TopicSettings
from tests.support.fake_planner import Planner, Script, planning

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


@dataclass(slots=True)
class World:
    """`client` speaks to the application in process."""

    log: Log
    topics: Topics
    planner: Planner
    ingress: Ingress
    client: httpx.AsyncClient


async def until(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    """Poll until `condition` holds. Fails after `seconds`."""
    clock = SystemClock()
    end = clock.monotonic() + seconds
    while not condition():
        assert clock.monotonic() < end, f"not within {seconds} s: {what}"
        await clock.sleep(0.005)


def node(name: str = "node-1", *models: str, **fields: Any) -> Node:
    """A registration with these models."""
    found = tuple(NodeModel(name=model) for model in (models or ("tiny:1",)))
    return Node(**{"id": name, "boot": "b", "mailbox": 0, "backend": "ollama", "models": found, "at": 0.0, **fields})


async def register(log: Log, topics: Topics, *nodes: Node) -> None:
    """Put nodes into the registry."""
    producer = await log.producer(client_id="test-nodes")
    await producer.send_many([Message(topics.nodes, found.to_bytes(), found.id.encode(), 0, envelope("node")) for found in nodes])
    await producer.close()


def environment(log: Log, topics: Topics, clock: Clock, instance: str = "test-1", seed: int = 7, **settings: Any) -> Environment:
    """What the ingress may touch."""
    return Environment(ClusterSettings(topics=topics.settings, **settings), log, clock, Random(seed), topics, instance)


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
    log: Log,
    *,
    script: Callable[[Job], Script] | None = None,
    nodes: tuple[Node, ...] | None = None,
    prefix: str = "",
    settings: dict[str, Any] | None = None,
) -> AsyncIterator[World]:
    """Topics, a registered node with model `tiny:1`, a fake planner and an ingress, all running."""
    topics = Topics(TopicSettings(prefix=prefix))
    clock = SystemClock()
    await ensure_topics(log, topics)
    registered = (node(),) if nodes is None else nodes
    await register(log, topics, *registered)
    ingress = Ingress(environment(log, topics, clock, grace_seconds=3.0), IngressSettings(**{**QUICK, **(settings or {})}))
    async with planning(log, topics, clock, script) as planner, running(ingress) as client:
        expected = {found.id for found in registered}
        await until(lambda: {found.id for found in ingress.door.registry.table} == expected and ingress.door.registry.complete, "nodes", 20)
        await until(ingress.door.access.complete, "keys", 20)
        yield World(log, topics, planner, ingress, client)


async def inline(_guest: Guest, result: Result) -> Result:
    """What makes an answer whole that came inside its record."""
    return result
