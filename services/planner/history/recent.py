"""RecentIds: the client-given ids that ended before the watermark, read back after a take-over.

A client may send its id again within the window (an hour) and must get the same result, not a second run; the successor has replayed
only from the watermark on. The rest is read in the background, as far back as there is room to remember; jobs with client-given ids wait
for that, others do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import ValidationError

from services.planner.engine.settled import SettledIds
from services.planner.history.takeover import read_range
from services.planner.wiring import Wiring
from shared.contracts.event import EVENT, Event, JobSettled, PlannerStarted
from shared.kafka.port import Record, TopicPartition
from shared.telemetry import logs

log = logs.get(__name__)

_EVENTS_A_JOB = 8
"""A first guess at how far back the ids lie that there is room for."""
_FURTHER = 4
"""Too few found: so many times as far back."""


class Ended(NamedTuple):
    """A settle event, as JSON. `at`: seconds since the epoch."""

    job: str
    at: float
    value: bytes


class SettleEvents:
    """The newest `count` valid settle events of a stretch of `job-events` that begins anywhere: feed every record in order, take `valid`.

    Epochs only grow: before the first PlannerStarted of the stretch the epoch in force is the highest seen, a fenced writer's is lower.
    """

    def __init__(self, count: int) -> None:
        self._epoch = -1
        self._closed: deque[Ended] = deque(maxlen=count)
        self._open: deque[Ended] = deque(maxlen=count)
        """All of `_epoch`."""
        self._started = False

    def feed(self, offset: int, event: Event, value: bytes) -> None:
        if isinstance(event, PlannerStarted):
            self._closed.extend(self._open)
            self._begin(offset)
            self._started = True
            return
        if event.epoch > self._epoch and not self._started:
            self._begin(event.epoch)
        if isinstance(event, JobSettled) and event.client_id and event.epoch == self._epoch:
            self._open.append(Ended(event.job, event.at, value))

    def valid(self) -> list[Ended]:
        """In log order."""
        self._closed.extend(self._open)
        self._open.clear()
        return list(self._closed)

    def _begin(self, epoch: int) -> None:
        self._open.clear()
        self._epoch = epoch


def starts(oldest: int, until: int, count: int) -> Iterator[int]:
    """Where to begin reading for `count` ids before `until`: ever further back, the last is `oldest`."""
    reach = count * _EVENTS_A_JOB
    while oldest < until - reach:
        yield until - reach
        reach *= _FURTHER
    if oldest < until:
        yield oldest


async def read_back(wiring: Wiring, partition: TopicPartition, until: int, known: SettledIds, window_seconds: float) -> None:
    """Put what ended within the window and before offset `until` into `known`, as far as it has room. Raises LogError."""
    wall, now = wiring.clock.wall(), wiring.clock.monotonic()
    oldest = await wiring.consumer.offset_at(partition, int((wall - window_seconds) * 1000))
    ended: list[Ended] = []
    for start in starts(oldest, until, known.count):
        ended = await _ended(wiring, partition, start, until, known.count)
        if len(ended) == known.count:
            break
    for job, at, value in reversed(ended):
        if not known.add_older(job, value, now - max(0.0, wall - at)):
            break


async def _ended(wiring: Wiring, partition: TopicPartition, start: int, until: int, count: int) -> list[Ended]:
    found = SettleEvents(count)

    def visit(record: Record) -> None:
        value = record.value or b""
        try:
            found.feed(record.offset, EVENT.validate_json(value), value)
        except ValidationError as error:
            log.warning("unreadable_event", offset=record.offset, problems=error.error_count())

    await read_range(wiring, partition, start, until, visit)
    return found.valid()
