"""Fence: a due timer fires once every outcome is folded that was in the log when it became due.

Alarm: wakes a task at a due time on the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from itertools import chain

from services.planner.deciding import attempts
from services.planner.round import Round
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book
from shared.errors import LogError
from shared.kafka.port import TopicPartition
from shared.processing.tries import Tries
from shared.telemetry import logs

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


log = logs.get(__name__)

_AGAIN_SECONDS = 1.0


class Fence:
    """The timers of one book."""

    def __init__(self, wiring: Wiring, outcomes: TopicPartition, book: Book, tries: Tries, wake: Callable[[], None]) -> None:
        self._wiring, self._outcomes, self._book, self._tries, self._wake = wiring, outcomes, book, tries, wake
        self._due: list[tuple[int, list[str]]] = []
        """(end of outcomes when they became due, jobs): fired once that much is folded."""
        self._asking = False

    @property
    def next_due(self) -> float:
        """When to look again; never while the log is asked."""
        return math.inf if self._asking else self._book.timers.next_due()

    def fire(self, round_: Round, folded: int) -> None:
        """`folded`: the next offset of outcomes."""
        if self._due:
            ready = [jobs for end, jobs in self._due if end <= folded]
            self._due = [entry for entry in self._due if entry[0] > folded]
            for job in chain.from_iterable(ready):
                self._tries.at = job
                attempts.on_due(round_, job)
            self._tries.at = None
        if self.next_due <= round_.now:
            self._asking = True
            self._wiring.spawn(self._ask())

    async def _ask(self) -> None:
        """Learn where `outcomes` ends, then let what was due before that go."""
        try:
            due_by = self._wiring.clock.monotonic()
            end = (await self._wiring.consumer.end_offsets([self._outcomes]))[self._outcomes]
            self._due.append((end, self._book.timers.pop_due(due_by)))
        except LogError as error:
            log.warning("timers_wait_for_kafka", home=self._outcomes.partition, reason=error.message)
            await self._wiring.clock.sleep(_AGAIN_SECONDS)
        finally:
            # Also after an error: while this ran no alarm was set, and nothing else might ever wake the home.
            self._asking = False
            self._wake()
