"""When the next token is due. Due times add up, so that a late wake-up is caught up and the mean speed holds in real time."""

from __future__ import annotations

from shared.clock import Clock

YIELD_TOKENS = 32
"""Tokens that take no time let others run after so many."""


class Pace:
    """The rhythm of one sequence."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock.monotonic()
        self._free_tokens = 0

    async def wait(self, seconds: float) -> None:
        """Return when `seconds` after the previous token are over."""
        if seconds <= 0:
            self._free_tokens += 1
            if self._free_tokens % YIELD_TOKENS == 0:
                await self._clock.sleep(0)
            return
        self._due += seconds
        late = self._clock.monotonic() - self._due
        if late < 0:
            await self._clock.sleep(-late)
