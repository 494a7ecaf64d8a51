"""A bound on what is in flight: callers beyond it wait in order."""

from __future__ import annotations

import asyncio
from collections import deque


class InFlight:
    """Counts bytes and records. A request larger than the whole window passes alone, when nothing else is in flight."""

    __slots__ = ("_bytes", "_max_bytes", "_max_records", "_records", "_waiting")

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._max_bytes, self._max_records = max_bytes, max_records
        self._bytes = self._records = 0
        self._waiting: deque[tuple[int, int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int, records: int) -> None:
        """Wait for room, first come first served. Cancelling a waiter gives its place up."""
        if not self._waiting and self._fits(size, records):
            self._bytes += size
            self._records += records
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, records, turn))
        try:
            await turn
        except asyncio.CancelledError:
            entered = turn.done() and not turn.cancelled()
            turn.cancel()
            self.leave(size if entered else 0, records if entered else 0)
            raise

    def leave(self, size: int, records: int) -> None:
        self._bytes -= size
        self._records -= records
        while self._waiting:
            size, records, turn = self._waiting[0]
            if not turn.done():
                if not self._fits(size, records):
                    return
                self._bytes += size
                self._records += records
                turn.set_result(None)
            self._waiting.popleft()

    def _fits(self, size: int, records: int) -> bool:
        if self._records == 0:
            return True
        return self._bytes + size <= self._max_bytes and self._records + records <= self._max_records
