"""`python -m infra.lab.walk [--job chat|maestro|cached] [--calls]`: how many functions of how many files a job enters on its way, and how
often the way changes file. `--calls`: how often functions are called a job while 64 are in flight, libraries and event loop included.

The real services on the in-memory log, a backend that answers by itself (simulated: no model), a store of answers in memory, under virtual
time: the same code gives the same figures. A function counts once, where it is first entered; what also runs while nothing is asked for
does not count. Nor does the stand-in for Kafka. Figures: decision 0026.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any, NamedTuple

import click

from infra.cli.exits import Program
from infra.lab.simulators.ollama.schema import instance
from infra.lab.virtual_loop import run
from services.cache.port import CacheEntry, Finding, FoundEntry
from services.cache.redis_store import NothingKept
from services.cache.settings import CacheSettings
from services.worker.backends.base import Completion, Delta, ModelCall
from services.worker.backends.in_process import CHAT_MODEL, InProcessBackend
from services.worker.settings import WorkerSettings
from shared.clock import Clock, LoopClock
from shared.contracts.node import Hardware
from shared.kafka.memory.memory import MemoryLog
from shared.processing.provision import ensure_topics
from shared.service import Environment, Service
from shared.services import SERVICES
from shared.settings import ClusterSettings
from shared.tasks import ended
from shared.topics import Topics, TopicSettings

_ROOT = Path(__file__).parents[2]
_COUNTED, _STAND_IN = (f"{_ROOT}/services/", f"{_ROOT}/shared/"), f"{_ROOT}/shared/kafka/memory/"
_QUIET_SECONDS = 6.0
"""Longer than any period of what services do by themselves."""
_SETTLE_SECONDS = 1.0
"""After the answer: commits, status."""
_MANY, _AT_ONCE = 512, 64
"""Jobs, and who asks for them, where calls are counted."""


_ASKED: dict[str, dict[str, Any]] = {
    "chat": {"model": "auto"},
    "maestro": {"model": "tutti/maestro", "input": {"rounds": 1, "width": 1, "skip_team": False}},
    "cached": {"model": CHAT_MODEL, "temperature": 0, "cache": {"mode": "exact"}},
}
"""What is asked, besides its words: the same again each time."""


class _Backend(InProcessBackend):
    """Where a schema is asked for, an instance of it: what a pattern decides goes its whole way."""

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        async for said in super().call(call):
            yield _chosen(said, call.step.format) if isinstance(said, Completion) and isinstance(call.step.format, dict) else said


def _chosen(said: Completion, schema: Any) -> Completion:
    return replace(said, answer=said.answer.changed(text=json.dumps(instance(schema, Random(0)))))


class _Store(NothingKept):
    """In the place of Redis."""

    def __init__(self) -> None:
        self._entries: dict[str, CacheEntry] = {}

    async def find(self, keys: Sequence[str]) -> list[Finding]:
        return [FoundEntry(self._entries[key], 1.0) if key in self._entries else None for key in keys]

    async def keep(self, entries: Sequence[CacheEntry]) -> None:
        self._entries |= {entry.key: entry for entry in entries}


class Step(NamedTuple):
    """One function on the way."""

    file: str
    function: str


class Walk(NamedTuple):
    """In the order of first entry."""

    steps: tuple[Step, ...]

    @property
    def files(self) -> int:
        """Different ones."""
        return len({step.file for step in self.steps})

    @property
    def changes(self) -> int:
        """Steps that lie in another file than the one before."""
        return sum(before.file != after.file for before, after in zip(self.steps, self.steps[1:], strict=False))


async def entered(work: Callable[[], Awaitable[object]]) -> Counter[CodeType]:
    """How often each function is entered while this runs, in order of first entry."""
    found: Counter[CodeType] = Counter()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            found[frame.f_code] += 1

    sys.setprofile(note)
    try:
        await work()
    finally:
        sys.setprofile(None)
    return found


def _counts(code: CodeType) -> bool:
    return code.co_filename.startswith(_COUNTED) and not code.co_filename.startswith(_STAND_IN) and not code.co_name.startswith("<")


async def _ask(application: Any, job: str) -> int:
    """One such job, without a socket; its status."""
    body = json.dumps({**_ASKED[job], "messages": [{"role": "user", "content": "Which planet is red?"}]}).encode()
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": [(b"host", b"walk")]}
    sent, status = False, 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await application(scope, receive, send)
    return status


def walk(kind: str = "chat") -> Walk:
    """Of the last of a few jobs of this kind: nothing is done for the first time any more."""
    return run(_walked(kind))


async def _walked(kind: str) -> Walk:
    async with _cluster(kind) as (application, clock):

        async def job() -> None:
            await _ask(application, kind)
            await clock.sleep(_SETTLE_SECONDS)

        await job()
        idle = await entered(lambda: clock.sleep(_QUIET_SECONDS))
        found = await entered(job)
    own = (code for code in found if _counts(code) and code not in idle)
    return Walk(tuple(Step(str(Path(code.co_filename).relative_to(_ROOT)), code.co_qualname) for code in own))


def calls(kind: str = "chat") -> float:
    """Of Python functions, a job: what a job costs that no other load of the machine changes. Work in C counts nothing."""
    return run(_called(kind))


async def _called(kind: str) -> float:
    async with _cluster(kind) as (application, _):
        await _ask_many(application, kind)
        found = await entered(lambda: _ask_many(application, kind))
    return sum(count for code, count in found.items() if not code.co_filename.startswith(_STAND_IN)) / _MANY


async def _ask_many(application: Any, kind: str) -> None:
    left = iter(range(_MANY))

    async def caller() -> None:
        for _ in left:
            await _ask(application, kind)

    await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))


@asynccontextmanager
async def _cluster(kind: str) -> AsyncIterator[tuple[Any, Clock]]:
    """One of each service, that has answered such a job. The ingress's application is asked."""
    clock, settings = LoopClock(), ClusterSettings(topics=TopicSettings(home_partitions=1))
    log, topics = MemoryLog(clock), Topics(settings.topics)
    await ensure_topics(log, topics)
    services: dict[str, Service] = {}
    stop = asyncio.Event()
    own: dict[str, tuple[Any, ...]] = {
        "worker": (WorkerSettings(backend="in_process", node="walked"), _Backend(), Hardware()),
        "cache": (CacheSettings(), _Store()),
    }
    names = [service.name for service in SERVICES if not service.aside or (kind, service.name) == ("cached", "cache")]
    for number, name in enumerate(names):
        environment = Environment(settings, log.process(name), clock, Random(number), topics, f"{name}-walk", [])
        services[name] = import_module(f"services.{name}.app").build(environment, *own.get(name, ()))
    running = [asyncio.create_task(service.run(stop)) for service in services.values()]
    ingress: Any = services["ingress"]
    application = ingress.asgi()
    try:
        async with asyncio.timeout(60):
            while not all(service.readiness().ready for service in services.values()) or await _ask(application, kind) != 200:
                await clock.sleep(0.1)
        yield application, clock
    finally:
        await ended(*running)


@click.command(cls=Program)
@click.option("--job", "kind", type=click.Choice(list(_ASKED)), default="chat", help="Whose way.")
@click.option("--list", "listed", is_flag=True, help="Print the way itself.")
@click.option("--calls", "called", is_flag=True, help="Count calls.")
def main(kind: str, listed: bool, called: bool) -> None:
    """Count, and print."""
    if called:
        click.echo(f"{calls(kind):.0f} calls of functions a job, {_AT_ONCE} in flight")
        return
    found = walk(kind)
    for step in found.steps if listed else ():
        click.echo(f"{step.file}: {step.function}")
    click.echo(f"{len(found.steps)} functions in {found.files} files, {found.changes} changes of file")


if __name__ == "__main__":
    main()
