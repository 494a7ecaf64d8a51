"""Routers, delays and pretended workers on the in-memory log."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from infra.lab.virtual_loop import within
from services.delay.app import build as build_delay
from services.delay.settings import DelaySettings
from services.router.app import build as build_router
from services.router.settings import RouterSettings
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.step import Step
from shared.service import Service
from shared.topics import TopicSettings
from tests.support.pretended_worker import PretendedWorker
from tests.support.stage import Stage

STANDARD = PriorityClass.STANDARD


class Cluster(Stage):
    """Routers, delays and nodes on a stage."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(TopicSettings(steps_partitions=6, capabilities=("chat", "embed")), seed=seed)

    def router(self, name: str = "r1", **policy: Any) -> Service:
        return self.start(name, build_router(self.environment(name), RouterSettings(**policy)))

    def delay(self, name: str = "d1", **policy: Any) -> Service:
        return self.start(name, build_delay(self.environment(name), DelaySettings(**policy)))

    def node(self, name: str, mailbox: int, *, seconds: float = 0.1, **behaviour: Any) -> PretendedWorker:
        made = PretendedWorker(
            self.process(name), self.topics, self.clock, self.random, name=name, mailbox=mailbox, seconds=(seconds, seconds), **behaviour
        )
        self.run(name, made)
        return made

    def start(self, name: str, service: Service) -> Service:
        self.run(name, service)
        return service

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0, step: float = 0.05) -> float:
        return await super().until(condition, seconds, step)

    def ask(self, *steps: Step, partition: int = 0, priority_class: PriorityClass = STANDARD) -> None:
        """Produce steps."""
        for step in steps:
            self.write(self.topics.steps(step.capability, priority_class), partition, step.to_bytes(), headers.envelope("step"))


@contextlib.asynccontextmanager
async def cluster(seed: int = 0) -> AsyncIterator[Cluster]:
    """A cluster whose services are ended with the block."""
    made = Cluster(seed)
    try:
        yield made
    finally:
        await made.close()


simulated = within(cluster)
"""Run an async test on a cluster of its own, under virtual time."""
