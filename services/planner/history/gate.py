"""IdGate: jobs with client-given ids wait here until history has told whether their id ended before.

After a take-over all of them wait until the groups of remembered ids are read (a few dozen events); later only those whose id is known,
until its settle event is read again. The positions of their records are not committed meanwhile. What waits counts in its class as live
jobs do, so that nobody else's intake is used up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple

from services.planner.deciding.admission import JobInput
from services.planner.history.recent import read_again
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book
from shared.contracts.base import CLASSES
from shared.contracts.event import IdsRemembered, JobSettled
from shared.errors import LogError
from shared.kafka.port import Record, TopicPartition
from shared.telemetry import logs

log = logs.get(__name__)

_AGAIN_SECONDS = 1.0


class GatedJob(NamedTuple):
    """`ended`: the settle event of an earlier job with this id, within the window."""

    record: Record
    given: JobInput
    ended: JobSettled | None = None


class IdGate:
    """Of one book. `run` is its task; whoever adds bounds the number. In order of arrival."""

    def __init__(self, wiring: Wiring, events: TopicPartition, book: Book, wake: Callable[[], None]) -> None:
        self._wiring, self._events, self._book, self._wake = wiring, events, book, wake
        self._known = not book.kept_ids.unread
        self._closed = False
        self._held: list[GatedJob] = []
        self.of_class = dict.fromkeys(CLASSES, 0)
        """How many places those of each class will take that wait."""
        self._read: dict[int, JobSettled | None] = {}
        """Offset → what was read there for those that wait."""
        self._asked = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, record: Record, given: JobInput, now: float) -> bool:
        """Keep this job if it must wait; returns whether."""
        if self._offset(given, now) is None and (self._known or not given.client_id):
            return False
        self._held.append(GatedJob(record, given))
        self.of_class[given.priority_class] += self._places(record)
        self._asked.set()
        return True

    def held(self) -> Iterator[Record]:
        """Those whose jobs wait here."""
        return (one.record for one in self._held)

    def release(self, now: float) -> list[GatedJob]:
        """Those of whom all is known."""
        if not self._known or not self._held:
            return []
        ready, waiting = [], []
        for one in self._held:
            offset = self._offset(one.given, now)
            if offset is not None and offset not in self._read:
                waiting.append(one)
                continue
            self.of_class[one.given.priority_class] -= self._places(one.record)
            ended = None if offset is None else self._read[offset]
            ready.append(one._replace(ended=ended if ended is not None and ended.job == one.given.id else None))
        self._held = waiting
        self._read.clear()
        return ready

    def _places(self, record: Record) -> int:
        return self._wiring.policy.places(len(record.value or b""))

    def clamp(self, positions: dict[str, int]) -> dict[str, int]:
        """Positions that do not pass what is held."""
        clamped = dict(positions)
        for record, *_ in self._held:
            clamped[record.topic] = min(clamped.get(record.topic, record.offset), record.offset)
        return clamped

    def close(self) -> None:
        """End the task; the book is given up."""
        self._closed = True
        self._asked.set()

    async def run(self) -> None:
        """Learn what the predecessor remembered, then read what is asked for, until closed."""
        await self._until_done(self._learn)
        while not self._closed:
            await self._asked.wait()
            self._asked.clear()
            await self._until_done(self._answer)

    def _offset(self, given: JobInput, now: float) -> int | None:
        """Where history tells the end of this id; None: nowhere, or the book itself knows all of the job that is needed."""
        book = self._book
        if given.id in book.jobs or book.cancels.ended(given.id) is not None:
            return None
        ended = book.out.get(given.id)
        if ended is not None:
            return None if ended.source == given.source else ended.settled_offset
        return book.recent_ids.find(given.id, now) if given.client_id else None

    async def _until_done(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self._closed:
            try:
                await work()
            except LogError as error:
                log.warning("recent_ids_wait_for_kafka", home=self._events.partition, reason=error.message)
                await self._wiring.clock.sleep(_AGAIN_SECONDS)
            else:
                self._wake()
                return

    async def _learn(self) -> None:
        book, clock = self._book, self._wiring.clock
        started, offsets = clock.monotonic(), book.kept_ids.unread
        if offsets:
            found = await read_again(self._wiring, self._events, offsets, IdsRemembered)
            groups = [(offset, group, written) for offset, (group, written) in found.items() if group is not None]
            book.kept_ids.learn(groups, clock.monotonic())
        self._known = True
        seconds = round(clock.monotonic() - started, 3)
        log.info("recent_ids_known", home=self._events.partition, ids=len(book.recent_ids), groups=len(offsets), seconds=seconds)

    async def _answer(self) -> None:
        now = self._wiring.clock.monotonic()
        offsets = {offset for one in self._held if (offset := self._offset(one.given, now)) is not None}
        if offsets:
            found = await read_again(self._wiring, self._events, offsets, JobSettled)
            self._read.update({offset: settled for offset, (settled, _) in found.items()})
