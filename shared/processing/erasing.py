"""Erasing: what a service holds of an erased tenant goes. Each that holds something reads the entries of the registry, and does it again
when it begins: what was on its way when it was asked for is gone then, too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from shared.clock import Clock, within
from shared.contracts.erased import Erased
from shared.errors import TuttiError
from shared.telemetry import logs

log = logs.get(__name__)

_AGAIN_SECONDS = 5.0
_LATER_SECONDS = 60.0
"""By then what was on its way has been stored."""


Erase = Callable[[str, float], Awaitable[int]]


class Erasing:
    """`erase(tenant, before)` lets all go that is older than an instant (seconds since 1970), repeatably, and says how much that was; while
    its store is away it raises a TuttiError that is retryable. `kept_seconds`: what is older than that is gone anyway.
    """

    def __init__(self, clock: Clock, erase: Erase, *, kept_seconds: float = math.inf) -> None:
        self._clock, self._erase, self._kept_seconds = clock, erase, kept_seconds
        self._due: dict[str, float] = {}
        self._wake = asyncio.Event()

    def on_entry(self, _kind: str, name: str, value: bytes | None) -> None:
        """An entry of the registry. Raises ValueError when it is not valid."""
        if value is not None and self._clock.wall() - (at := Erased.model_validate_json(value).at) < self._kept_seconds:
            self._due[name] = at
            self._wake.set()

    async def run(self) -> None:
        """Erase until cancelled: at once, and a second time when it has been quiet for a minute."""
        once: dict[str, float] = {}
        while True:
            if once and not await within(_LATER_SECONDS, self._wake.wait()):
                due, once = once, {}
            else:
                await self._wake.wait()
                self._wake.clear()
                due, self._due = self._due, {}
                once = once | due
            for tenant, before in due.items():
                await self._patiently(tenant, before)

    async def _patiently(self, tenant: str, before: float) -> None:
        while True:
            try:
                gone = await self._erase(tenant, before)
            except TuttiError as error:
                if not error.retryable:
                    raise
                log.warning("not_erased_yet", tenant=tenant, reason=error.message)
                await self._clock.sleep(_AGAIN_SECONDS)
            else:
                log.info("tenant_erased", tenant=tenant, gone=gone)
                return
