"""One cluster in memory with a worker in it, under virtual time. The test plays the router and the planner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, TypeVar

from infra.lab import virtual_loop
from services.worker.app import WorkerService, build
from services.worker.backends.base import Backend
from services.worker.settings import WorkerSettings
from shared.contracts import headers
from shared.contracts.base import StepId
from shared.contracts.chat import ChatMessage
from shared.contracts.control import StopStep
from shared.contracts.credits import CREDITS, Credits, RouterPresence
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.node import Hardware, Node
from shared.contracts.outcome import OUTCOME, Outcome, WorkerStarted
from shared.contracts.reply import Chunk, Chunks
from shared.contracts.step import Step
from shared.processing.blobs import Blobs
from shared.topics import TopicSettings
from tests.support.stage import JumpingClock, Stage

Found = TypeVar("Found")
NODE = "node-1"


def step(number: int = 1, **changes: Any) -> Step:
    """A chat step of a job of its own."""
    base: dict[str, Any] = {
        "job": f"j{number}",
        "id": StepId(f"{number:032x}"),
        "home": number % 2,
        "model": "small",
        "messages": (ChatMessage(role="user", content=f"question {number}"),),
    }
    return Step(**(base | changes))


class Running:
    """A worker that runs in the world."""

    def __init__(self, service: WorkerService, task: asyncio.Task[None], stop: asyncio.Event) -> None:
        self.service, self.task, self.stop = service, task, stop

    async def end(self) -> None:
        """SIGTERM, and the end of the process."""
        self.stop.set()
        await self.task


class World(Stage):
    """What a test writes to a worker and reads of it."""

    clock: JumpingClock

    def __init__(self, *, work_partitions: int = 4) -> None:
        super().__init__(TopicSettings(home_partitions=2, work_partitions=work_partitions, replies_partitions=2))
        self.blobs = Blobs(self.log, self.clock, self.topics, service="test", instance="test")
        self.boots = 0

    def service(self, backend: Backend, node: str = NODE, process: str = "worker", **settings: Any) -> WorkerService:
        self.boots += 1
        own = {"grace_seconds": settings.pop("grace_seconds", 10.0), "dead_boot": settings.pop("dead_boot", "")}
        environment = self.environment(process, f"{process}-{self.boots}", **own)
        return build(environment, WorkerSettings(node=node, **({"slots": 2} | settings)), backend, Hardware(cpu_count=2))

    @asynccontextmanager
    async def worker(self, backend: Backend, **settings: Any) -> AsyncIterator[Running]:
        """A ready worker; killed without ceremony at the end, when it still runs. `before(service)`: called before it runs."""
        before = settings.pop("before", lambda _: None)
        service, stop = self.service(backend, **settings), asyncio.Event()
        before(service)
        running = Running(service, asyncio.create_task(service.run(stop)), stop)
        try:
            await self.until(lambda: service.reader.number is not None and service.announcer.acknowledged_at is not None)
            yield running
        finally:
            if not running.task.done():
                running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0, step: float = 0.01) -> float:
        return await super().until(condition, seconds, step)

    # What routers and planners write

    def route(self, *steps: Step, mailbox: int = 0, node: str = NODE, trace: str | None = None) -> None:
        for given in steps:
            head = (*headers.envelope("step", trace), (headers.NODE, node.encode()))
            self.write(self.topics.work(given.capability), mailbox, given.to_bytes(), head)

    def stop_step(self, given: Step, *, claim: Any = None, node: str | None = NODE, mailbox: int = 0) -> None:
        stop = StopStep(node=node, job=given.job, step=given.id, attempt=given.attempt, claim=claim)
        self.write(self.topics.controls, mailbox, stop.to_bytes(), headers.envelope("stop"))

    def presence(self, router: str, backlog: int = 0) -> None:
        value = RouterPresence(router=router, backlog=backlog).to_bytes()
        self.write(self.topics.presence, 0, value, headers.envelope("router"), router.encode())

    # What the worker wrote

    def outcomes(self, kind: type[Any] = object, job: str | None = None) -> list[Any]:
        """Of this kind, or of any attempt."""
        every = [_outcome(value) for value in self.values(self.topics.outcomes)]
        every = [o for o in every if isinstance(o, kind) and (kind is not object or not isinstance(o, WorkerStarted))]
        return [o for o in every if job is None or getattr(o, "job", None) == job]

    def chunks(self) -> list[Chunk]:
        return [chunk for value in self.values(self.topics.replies) for chunk in Chunks.model_validate_json(value).chunks]

    def nodes(self) -> list[Node]:
        return [Node.model_validate_json(value) for value in self.values(self.topics.nodes)]

    def credits(self) -> list[Credits]:
        every = [CREDITS.validate_json(value) for value in self.values(self.topics.credits)]
        return [record for record in every if isinstance(record, Credits)]

    def dead_letters(self) -> list[DeadLetter]:
        return [DeadLetter.model_validate_json(value) for value in self.values(self.topics.dead_letters)]


@lru_cache(maxsize=1000)
def _outcome(value: bytes) -> Outcome:
    return OUTCOME.validate_json(value)


def play(scenario: Callable[[World], Awaitable[None]], **world: Any) -> None:
    """Run `scenario` in a fresh world under virtual time."""

    async def main() -> None:
        await scenario(World(**world))

    virtual_loop.run(main())
