"""The life of one service in a process: started, asked to stop, drained within the grace period, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from shared.errors import ConfigurationError, ConsumerGaveUp
from shared.service import Readiness, Service
from shared.telemetry import logs

log = logs.get(__name__)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SETTINGS = 78
"""EX_CONFIG of sysexits.h."""
EXIT_ANEW = 75
"""EX_TEMPFAIL: nothing is wrong but this process; started anew it does better."""


Word = Callable[[], tuple[bool, tuple[str, ...]]]
"""(ready, reasons)"""


def _nothing_to_say() -> tuple[bool, tuple[str, ...]]:
    return True, ()


class Life:
    """Runs one service. `on_end` is called once, when its task is over for whatever reason."""

    def __init__(self, service: Service, grace_seconds: float, on_end: Callable[[], None], topics: Word = _nothing_to_say) -> None:
        """`topics`: what else readiness depends on (`TopicNews.readiness`)."""
        self.service = service
        self._topics = topics
        self.stop = asyncio.Event()
        self.exit_code = EXIT_OK
        self._grace_seconds = grace_seconds
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None, None]:
        """FastStream's lifespan: the service runs inside."""
        self._task = asyncio.create_task(self.service.run(self.stop), name=self.service.name)
        self._task.add_done_callback(self._ended)
        try:
            yield
        finally:
            await self.drain()

    async def drain(self) -> None:
        """Ask the service to stop and wait for it; after the grace period it is cancelled, which counts as a failure. Idempotent."""
        self.stop.set()
        if self._task is None or self._task.done():
            return
        await asyncio.wait({self._task}, timeout=self._grace_seconds)
        if not self._task.done():
            log.error("grace_expired", service=self.service.name, grace_seconds=self._grace_seconds)
            self.exit_code = EXIT_FAILED
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)

    def alive(self) -> bool:
        """Whether the service's task runs."""
        return self._task is not None and not self._task.done()

    def readiness(self) -> Readiness:
        """The service's own word and that of its topics, unless it is stopping."""
        if self.stop.is_set():
            return Readiness(ready=False, reasons=("stopping",))
        if not self.alive():
            return Readiness(ready=False, reasons=("not running",))
        own = self.service.readiness()
        ready, reasons = self._topics()
        return Readiness(own.ready and ready, own.reasons + reasons)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        while isinstance(error, BaseExceptionGroup):  # a task group ended by one of its tasks
            error = error.exceptions[0]
        if isinstance(error, ConfigurationError):
            log.error("wrong_settings", service=self.service.name, reason=error.message)
            self.exit_code = EXIT_SETTINGS
        elif isinstance(error, ConsumerGaveUp):
            log.error("consumer_gave_up", service=self.service.name, reason=error.message)
            self.exit_code = EXIT_ANEW
        elif error is not None:
            log.failure("service_failed", error, service=self.service.name)
            self.exit_code = EXIT_FAILED
        elif not self.stop.is_set():
            log.error("service_ended_unasked", service=self.service.name)
            self.exit_code = EXIT_FAILED
        self._on_end()
