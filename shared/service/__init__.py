"""The shell of every service: what a service is, and how a process runs one or several of them.

A service is a long-running coroutine that gets everything from an `Environment` and tells whether it is ready. The shell gives it
an event loop (uvloop), structured logs, an HTTP server with /healthz, /readyz and /metrics (FastStream's ASGI application, which
also carries the service's own routes), SIGTERM handling with a grace period, and exit codes: 0 ended in order, 1 failed, 78 wrong settings.

This file is what services and tests import; the shell itself is `process.run_process`, which `python -m services.<name>` calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol, runtime_checkable

from shared.clock import Clock
from shared.kafka.port import Log
from shared.settings import ClusterSettings
from shared.topics import Topics


@dataclass(frozen=True, slots=True)
class Environment:
    """What a service may touch. Tests hand in the in-memory log, a virtual clock and a seeded random."""

    settings: ClusterSettings
    log: Log
    clock: Clock
    random: Random
    topics: Topics
    instance: str
    """Unique name of this process: host-pid-random."""
    topics_made_anew: list[Callable[[str], None]] = field(default_factory=list)
    """Who is to be called with the name of a topic that was deleted and made anew."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """`reasons` says, in short sentences, why not ready."""

    ready: bool
    reasons: tuple[str, ...] = field(default=())


SILENT_SECONDS = 5.0
"""Without an answer for longer, Kafka counts as away."""


def kafka_silence(answered_at: float | None, now: float, silent_seconds: float = SILENT_SECONDS) -> tuple[str, ...]:
    """The reason why a service is not ready as far as Kafka's answers go, or nothing. `answered_at`: monotonic seconds of the last one."""
    if answered_at is None:
        return ("no answer from Kafka yet",)
    return ("no answer from Kafka lately",) if now - answered_at > silent_seconds else ()


class Service(Protocol):
    """One service in one process. `run` and `readiness` are its `processor.Processor`'s."""

    @property
    def name(self) -> str: ...

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain within the grace period and return. Waits for Kafka by itself, however long it is away.

        Returning before `stop` is set, or raising, ends the process with exit code 1 (78 for ConfigurationError).
        """
        ...

    def readiness(self) -> Readiness:
        """Called by /readyz; must not block."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A service with an application of its own. It drains its requests in flight: once told to stop it gets no new connections."""

    def asgi(self) -> Any:
        """Served for every path the shell does not own."""
        ...


Build = Callable[[Environment], Service]
"""`services/<name>/app.py` has `def build(environment: Environment) -> Service`. Its own settings class reads the environment there."""
