"""`python -m infra.lab.walk`: how many functions of how many files one chat job enters on its way, and how often the way changes file.

The real services on the in-memory log, a backend that answers by itself (simulated: no model). A function counts once, where it is first
entered; what also runs while nothing is asked for does not count, nor does the stand-in for Kafka. Figures: decision 0026.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any, NamedTuple

import click

from services.worker.settings import WorkerSettings
from shared.clock import LoopClock
from shared.kafka.memory.memory import MemoryLog
from shared.processing.provision import ensure_topics
from shared.service import Environment, Service
from shared.services import SERVICES
from shared.settings import ClusterSettings
from shared.topics import Topics, TopicSettings

_ROOT = Path(__file__).parents[2]
_COUNTED, _STAND_IN = (f"{_ROOT}/services/", f"{_ROOT}/shared/"), f"{_ROOT}/shared/kafka/memory/"
_QUIET_SECONDS = 6.0
"""Longer than any period of what services do by themselves."""
_SETTLE_SECONDS = 1.0
"""After the answer: commits, status."""


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


async def entered(work: Callable[[], Awaitable[object]]) -> dict[CodeType, None]:
    """The functions that run while this does, in order of first entry."""
    found: dict[CodeType, None] = {}

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            found.setdefault(frame.f_code)

    sys.setprofile(note)
    try:
        await work()
    finally:
        sys.setprofile(None)
    return {code: None for code in found if _counts(code)}


def _counts(code: CodeType) -> bool:
    return code.co_filename.startswith(_COUNTED) and not code.co_filename.startswith(_STAND_IN) and not code.co_name.startswith("<")


async def ask(application: Any) -> int:
    """One plain chat, without a socket; its status."""
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Which planet is red?"}]}).encode()
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


async def walk() -> Walk:
    """Of the last of a few jobs: nothing is done for the first time any more."""
    clock, settings = LoopClock(), ClusterSettings(topics=TopicSettings(home_partitions=1))
    log, topics = MemoryLog(clock), Topics(settings.topics)
    await ensure_topics(log, topics)
    services: dict[str, Service] = {}
    stop = asyncio.Event()
    for number, name in enumerate(service.name for service in SERVICES if not service.aside):
        environment = Environment(settings, log.process(name), clock, Random(number), topics, f"{name}-walk", [])
        settings_of = WorkerSettings(backend="in_process", node="walked") if name == "worker" else None
        services[name] = import_module(f"services.{name}.app").build(environment, settings_of)
    running = [asyncio.create_task(service.run(stop)) for service in services.values()]
    ingress: Any = services["ingress"]
    application = ingress.asgi()
    try:
        async with asyncio.timeout(60):
            while not all(service.readiness().ready for service in services.values()) or await ask(application) != 200:
                await clock.sleep(0.1)

        async def job() -> None:
            await ask(application)
            await clock.sleep(_SETTLE_SECONDS)

        await job()
        idle = await entered(lambda: clock.sleep(_QUIET_SECONDS))
        found = await entered(job)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return Walk(tuple(Step(str(Path(code.co_filename).relative_to(_ROOT)), code.co_qualname) for code in found if code not in idle))


@click.command()
@click.option("--list", "listed", is_flag=True, help="Print the way itself.")
def main(listed: bool) -> None:
    """Count, and print."""
    found = asyncio.run(walk())
    for step in found.steps if listed else ():
        click.echo(f"{step.file}: {step.function}")
    click.echo(f"{len(found.steps)} functions in {found.files} files, {found.changes} changes of file")


if __name__ == "__main__":
    main()
