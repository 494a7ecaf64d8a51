"""RecentIds: the client-given ids that ended before the watermark, read back after a take-over; and settle events, read again.

A client may send its id again within the window (an hour) and must get the same result, not a second run; the successor has replayed
only from the watermark on. The rest is read in the background, as far back as there is room to remember.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

from pydantic import ValidationError

from services.planner.engine.settled import Ended, SettledIds
from services.planner.history.reading import POLL_SECONDS, read_range, reader
from services.planner.wiring import Wiring
from shared.contracts import headers
from shared.contracts.event import JobSettled
from shared.epochs import EpochFilter
from shared.kafka.port import Record, TopicPartition
from shared.telemetry import logs

log = logs.get(__name__)

_EVENTS_A_JOB = 8
"""A first guess at how far back the ids lie that there is room for."""
_FURTHER = 4
"""Too few found: so many times as far back."""
_STARTED, _SETTLED = b"planner_started", b"job_settled"
_CLIENT_ID = b'"client_id":true'
"""Inside a string its quotes would be escaped. In an answer's tool call it can stand too: an id too many is remembered."""


class SettleEvents:
    """The newest `count` settle events of jobs with client-given ids, of a stretch of `job-events` that begins anywhere.

    Hardly any event is parsed: there are hundreds of thousands. Times: milliseconds since the epoch.
    """

    def __init__(self, count: int) -> None:
        self._epochs = EpochFilter()
        self._found: deque[tuple[str, int, int]] = deque(maxlen=count)
        """(job, offset, time)"""
        self._exact = False

    def feed(self, record: Record) -> None:
        """Every record in order."""
        kind = headers.find(record.headers, headers.TYPE)
        if kind == _STARTED:
            self._epochs.started(record.offset)
            self._exact = True
            return
        value = record.value or b""
        if not self._exact:
            self._begin(value)
        if kind == _SETTLED and record.key is not None and self._epochs.admits_value(value) and _CLIENT_ID in value:
            self._found.append((record.key.decode(), record.offset, record.timestamp))

    def newest_first(self) -> list[tuple[str, int, int]]:
        return list(reversed(self._found))

    def __len__(self) -> int:
        return len(self._found)

    def _begin(self, value: bytes) -> None:
        """Before the first start the highest epoch seen is in force: a fenced writer's is lower, so what it settled was not valid."""
        before = self._epochs.epoch
        if self._epochs.admits_value(value) and self._epochs.epoch != before:
            self._found.clear()


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
    found = SettleEvents(known.count)
    for start in starts(oldest, until, known.count):
        found = SettleEvents(known.count)
        await read_range(wiring, partition, start, until, found.feed)
        if len(found) == known.count:
            break
    ended = ((job, Ended(offset, now - max(0.0, wall - time / 1000))) for job, offset, time in found.newest_first())
    known.add_older(ended)


async def read_again(wiring: Wiring, partition: TopicPartition, offsets: Collection[int]) -> dict[int, JobSettled | None]:
    """The settle events at these offsets; None where none is (any more). Raises LogError."""
    found: dict[int, JobSettled | None] = dict.fromkeys(offsets)
    open_ = set(offsets)
    async with reader(wiring, partition) as consumer:
        beginning = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        open_ -= {offset for offset in open_ if not beginning <= offset < end}
        while open_:
            consumer.seek(partition, min(open_))
            records = [r for some in (await consumer.poll(timeout_seconds=POLL_SECONDS)).values() for r in some]
            for record in records:
                if record.offset in open_:
                    found[record.offset] = _settled(record)
            if records:
                # An offset that was passed over holds no event: a control record, or one that was compacted away.
                open_ -= {offset for offset in open_ if offset <= records[-1].offset}
    return found


def _settled(record: Record) -> JobSettled | None:
    try:
        return JobSettled.model_validate_json(record.value or b"")
    except ValidationError as error:
        log.warning("unreadable_event", offset=record.offset, problems=error.error_count())
        return None
