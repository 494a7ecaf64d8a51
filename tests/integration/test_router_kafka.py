"""Promise: on a real Kafka steps reach nodes by credits, two routers share the work, and a router that dies loses nothing.

steps.chat.standard ──► router r1, r2 ──► work.chat (mailbox 0, 1) ──► stand-in nodes
                            │  ▲ credits                                    │
                            ▼  └────────────────────────────────────────────┘
                         outcomes (StepRouted)
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from random import Random
from typing import Any

import pytest

from services.router.app import build
from services.router.settings import RouterSettings
from shared.clock import SystemClock
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.outcome import OUTCOME
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, Producer, TopicPartition
from shared.processing.provision import ensure_topics
from shared.service import Environment
from shared.settings import ClusterSettings
from shared.tasks import ended
from shared.topics import Topics, TopicSettings
from tests.support.pretended_worker import PretendedWorker
from tests.support.routing import step

pytestmark = pytest.mark.kafka
CLOCK = SystemClock()


class Stage:
    """One test's topics on the real broker, and what runs on them."""

    def __init__(self, servers: str) -> None:
        self.log = AioLog(servers, CLOCK)
        self.topics = Topics(TopicSettings(prefix=f"router-{secrets.token_hex(4)}-", capabilities=("chat",), work_partitions=2))
        self.running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    def node(self, name: str, mailbox: int, slots: int, *, tells: bool = True) -> PretendedWorker:
        made = PretendedWorker(self.log, self.topics, CLOCK, Random(1), name=name, mailbox=mailbox, slots=slots, seconds=(0.01, 0.01))
        made.tells = tells
        self._start(made.run)
        return made

    def router(self, name: str) -> tuple[asyncio.Event, asyncio.Task[None]]:
        environment = Environment(ClusterSettings(), self.log, CLOCK, Random(1), self.topics, name)
        return self._start(build(environment, RouterSettings()).run)

    def _start(self, run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> tuple[asyncio.Event, asyncio.Task[None]]:
        stop = asyncio.Event()
        self.running.append((stop, asyncio.create_task(run(stop))))
        return self.running[-1]

    async def ask(self, producer: Producer, first: int, count: int) -> None:
        topic, partitions = self.topics.steps("chat", PriorityClass.STANDARD), self.topics.settings.steps_partitions
        asked = [step(job=f"j{number}", id=f"{number:032x}", home=number % 6) for number in range(first, first + count)]
        await producer.send_many(
            [Message(topic, s.to_bytes(), None, i % partitions, headers.envelope("step")) for i, s in enumerate(asked)]
        )

    async def outcomes(self) -> list[object]:
        reader = await self.log.consumer(client_id="outcomes")
        partitions = [TopicPartition(self.topics.outcomes, number) for number in range(6)]
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        found: list[object] = []
        while len(found) < sum(ends.values()):
            for records in (await reader.poll(timeout_seconds=1.0)).values():
                found += [OUTCOME.validate_json(record.value or b"") for record in records]
        await reader.close()
        return found

    async def close(self) -> None:
        for stop, task in self.running:
            stop.set()
            await asyncio.wait({task}, timeout=10.0)
        await ended(*(task for _, task in self.running))
        admin = await self.log.admin()
        await admin.delete_topics([topic.name for topic in self.topics.all()])
        await admin.close()
        await self.log.close()


@pytest.fixture
async def stage(kafka: str) -> AsyncIterator[Stage]:
    made = Stage(kafka)
    await ensure_topics(made.log, made.topics)
    yield made
    await made.close()


async def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = CLOCK.monotonic() + seconds
    while not condition():
        assert CLOCK.monotonic() < deadline, "it did not happen in time"
        await CLOCK.sleep(0.02)


def done(*nodes: PretendedWorker) -> Counter[str]:
    return Counter(step.job for node in nodes for step in node.done)


async def test_steps_reach_nodes_and_homes_learn_it(stage: Stage) -> None:
    """Two routers, two nodes, 300 steps: each runs once, no node is given more than its places. Of a node that tells its homes of none
    routers tell. (That they are silent about others' is asked under virtual time: `test_router_telling.py`.)
    """
    nodes = [stage.node("n1", 0, slots=8), silent := stage.node("n2", 1, slots=8, tells=False)]
    stage.router("r1")
    stage.router("r2")
    producer = await stage.log.producer(client_id="asker")
    await stage.ask(producer, 0, 300)
    await until(lambda: len(done(*nodes)) == 300, seconds=40.0)
    assert sum(done(*nodes).values()) == 300
    await until(lambda: all(len(node.done) for node in nodes), seconds=1.0)
    deadline = CLOCK.monotonic() + 10.0
    while missing := set(done(silent)) - {outcome.job for outcome in await stage.outcomes()}:  # type: ignore[attr-defined]
        assert CLOCK.monotonic() < deadline, f"routers do not tell of {missing}"
    await producer.close()


async def test_a_router_that_leaves_and_one_that_dies_lose_nothing(stage: Stage) -> None:
    """One is told to stop, its successor is cut off in the middle; a third ends the work: nothing is missing."""
    node = stage.node("n1", 0, slots=4)
    producer = await stage.log.producer(client_id="asker")
    stop, first = stage.router("r1")
    await stage.ask(producer, 0, 100)
    await until(lambda: len(node.done) >= 20, seconds=30.0)
    stop.set()
    await first
    _, second = stage.router("r2")
    await stage.ask(producer, 100, 100)
    await until(lambda: len(done(node)) >= 120, seconds=30.0)
    await ended(second)
    stage.router("r3")
    await until(lambda: len(done(node)) == 200, seconds=40.0)
    await producer.close()
