"""Alarm: wakes a task at a due time on the event loop."""

from __future__ import annotations

import asyncio
import math

_SHORTEST_SECONDS = 0.001
"""An event loop may fire a timer a little early; a shorter alarm could then spin."""


class Alarm:
    """One pending alarm at most; it may ring early (an earlier due time that has since moved), never late."""

    def __init__(self, wake: asyncio.Event) -> None:
        self._wake = wake
        self._due = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def set(self, due: float, now: float) -> None:
        """Ring at `due` (monotonic seconds). One that rings earlier is left alone: its ring sets the next."""
        if due >= self._due and self._due > now:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._due = due
        self._handle = None
        if not math.isinf(due):
            self._handle = asyncio.get_running_loop().call_later(max(_SHORTEST_SECONDS, due - now), self._ring)

    def _ring(self) -> None:
        self._due = math.inf
        self._handle = None
        self._wake.set()
