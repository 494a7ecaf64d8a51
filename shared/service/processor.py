"""Processor: the one life cycle of all services. A service gives it how to connect, why it is not ready and how to drain.

    connect ──► work ──────► told to stop ──► drain ──► close
       │          └─ a part raises ───────────────────────▲
       └─ `waits_for` says what for

`connect` opens what the service works with (`open`), catches up, and begins what runs for ever (`spawn`). It waits for Kafka as long as
it takes; what it opened is closed at the end, last first, whatever happened. `reasons` and `drain` are asked only once it has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from shared.clock import Clock
from shared.errors import LogError
from shared.service import Readiness
from shared.tasks import ended
from shared.telemetry import logs

log = logs.get(__name__)


class _Closable(Protocol):
    """A consumer, a producer, or what is made of them."""

    async def close(self) -> None: ...


Opened = TypeVar("Opened", bound=_Closable)


async def _nothing() -> None:
    return None


class Processor:
    """One life of one service: `run` and `readiness` are those of `shared.service.Service`."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[None]],
        *,
        reasons: Callable[[], Iterable[str]] = tuple,
        drain: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        """`reasons`: why not ready, in short sentences. `drain`: told to stop, within the grace period."""
        self._connect, self._reasons, self._drain = connect, reasons, drain
        self.waits_for: str | None = "no answer from Kafka yet"
        """Of a service that is not connected: for people."""
        self._opened: list[_Closable] = []
        self._tasks: dict[asyncio.Task[None], None] = {}
        """In the order in which they began, so that they end in one order too: a set's differs from run to run."""
        self._ended = asyncio.Event()
        self._error: BaseException | None = None
        self._orderly = True

    # For the service

    async def open(self, opening: Awaitable[Opened]) -> Opened:
        """What this opens is closed at the end."""
        opened = await opening
        self.closes(opened)
        return opened

    def closes(self, *opened: _Closable) -> None:
        """These are closed at the end, before what was opened earlier."""
        self._opened += opened

    def spawn(self, *parts: Coroutine[Any, Any, None]) -> None:
        """Run these beside, until they end or the service does. What one of them raises ends the service."""
        for part in parts:
            self.begin(part)

    def begin(self, part: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """The same for one, whose task is of interest."""
        task = asyncio.create_task(part, name=part.__qualname__)
        self._tasks[task] = None
        task.add_done_callback(self._on_end)
        return task

    def leave(self, error: Exception) -> None:
        """Drain as if told to stop; then this is raised."""
        self._error = self._error or error
        self._ended.set()

    # For the shell

    def readiness(self) -> Readiness:
        """Its own word once it is connected."""
        reasons = tuple(self._reasons()) if self.waits_for is None else (self.waits_for,)
        return Readiness(not reasons, reasons)

    async def run(self, stop: asyncio.Event) -> None:
        """Live until told to stop. Raises what ended a part, or what it left for."""
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._ended.wait())]
        self.spawn(self._become_ready())
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._orderly and self.waits_for is None:
                await self._drain()
        finally:
            await ended(*waits)
            await self._close()
        if self._error is not None:
            raise self._error

    async def _become_ready(self) -> None:
        await self._connect()
        self.waits_for = None

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._orderly = False
            self._error = self._error or error
            self._ended.set()

    async def _close(self) -> None:
        while self._tasks:
            await ended(*self._tasks)
        for opened in reversed(self._opened):
            try:
                await opened.close()
            except LogError as error:
                log.warning("close_failed", code=error.code)


async def every(clock: Clock, seconds: float, beat: Callable[[], Awaitable[object] | None]) -> None:
    """Call `beat` for ever, so long after its last end."""
    while True:
        await clock.sleep(seconds)
        beating = beat()
        if beating is not None:
            await beating
