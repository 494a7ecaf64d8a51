"""The only source of time. Durations come from the monotonic clock, instants that a user sees from the wall clock.

Two machines' clocks are never compared, except for deadlines that a user gave (ARCHITECTURE, law 7).
Under a virtual event loop `LoopClock` makes every wait virtual, because it reads the loop's own time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

LOOP_EPOCH = 1_700_000_000.0
"""Where wall time begins on a clock that is not the machine's."""


class Clock(Protocol):
    """Time as seen by one process."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back. For durations, leases, timeouts."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch. For instants in messages: deadlines, `not_before`, timestamps of events."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller for at least `seconds`; zero or less only yields to other tasks."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class LoopClock:
    """Reads the running event loop's time: real on a real loop, virtual on a virtual one. `skew_seconds` shifts wall time only."""

    def __init__(self, *, epoch: float = LOOP_EPOCH, skew_seconds: float = 0.0) -> None:
        self._epoch = epoch + skew_seconds

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self._epoch + asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class ManualClock:
    """Stands still until told. For unit tests of policies."""

    def __init__(self, start: float = LOOP_EPOCH) -> None:
        self._now = start

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.advance(max(0.0, seconds))
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds` (not negative)."""
        assert seconds >= 0, "time never goes back"
        self._now += seconds


async def within(seconds: float, waiting: Awaitable[object]) -> bool:
    """Whether it came to its end in this time; else it is cancelled."""
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return False
    return True


async def until(clock: Clock, condition: Callable[[], bool], seconds: float, look_seconds: float = 0.02) -> bool:
    """Look again and again whether the condition holds, but not for ever; whether it does."""
    last = clock.monotonic() + seconds
    while not condition():
        if clock.monotonic() >= last:
            return False
        await clock.sleep(look_seconds)
    return True
