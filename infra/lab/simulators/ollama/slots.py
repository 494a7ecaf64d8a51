"""The sequences of one runner: a first-come first-served semaphore without bound, each slot with the text it has last read.

Ollama's queue limit does not protect a loaded model (rule 1 of the scheduler): everything waits here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

WORTHWHILE = 64
"""A slot is chosen for its cache when it shares at least so many characters."""


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence; `text` is what its key-value cache holds."""

    text: str = ""


class Slots:
    """`count` slots and the requests that wait for one."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = [Slot() for _ in range(count)]
        self._waiting: deque[tuple[asyncio.Future[Slot], str]] = deque()

    @property
    def waiting(self) -> int:
        return sum(not future.done() for future, _ in self._waiting)

    async def acquire(self, prompt: str) -> Slot:
        """The free slot whose cache shares most with `prompt`, at once or in order of arrival. Raises what `fail` is given."""
        if self._free:
            return self._best(prompt)
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, prompt))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())
            raise

    def release(self, slot: Slot) -> None:
        """Give the slot to the longest waiting request."""
        self._free.append(slot)
        while self._waiting:
            future, prompt = self._waiting.popleft()
            if not future.done():
                future.set_result(self._best(prompt))
                return

    def fail(self, error: Exception) -> None:
        """End every wait with `error`: the runner is dead."""
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def _best(self, prompt: str) -> Slot:
        head = prompt[:WORTHWHILE]
        likely = [slot for slot in self._free if slot.text.startswith(head)]
        if not likely:
            return self._free.pop()
        best = max(likely, key=lambda slot: common_prefix(slot.text, prompt)) if len(likely) > 1 else likely[0]
        self._free.remove(best)
        return best


def common_prefix(one: str, other: str) -> int:
    """Length in characters of what both begin with; bisects, so that long prompts cost little."""
    if not one or not other or one[0] != other[0]:
        return 0
    low, high = 1, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
