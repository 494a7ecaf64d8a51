"""Recent: events that are read again by their offsets: groups of remembered ids after a take-over, and settle events.

A client may send its id again within the window (an hour) and must get the same result, not a second run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from pydantic import ValidationError

from services.planner.history.reading import POLL_SECONDS, reader
from services.planner.shard.wiring import Wiring
from shared.contracts.event import IdsRemembered, JobSettled
from shared.kafka.port import Record, TopicPartition
from shared.kafka.settings import SCATTERED_FETCH_BYTES
from shared.telemetry import logs

log = logs.get(__name__)

E = TypeVar("E", IdsRemembered, JobSettled)


async def read_again(
    wiring: Wiring, partition: TopicPartition, offsets: Collection[int], kind: type[E]
) -> dict[int, tuple[E | None, float]]:
    """The events of this type at these offsets, and when they were written, by the log's time; None where none is (any more).

    Raises LogError.
    """
    found: dict[int, tuple[E | None, float]] = dict.fromkeys(offsets, (None, 0.0))
    open_ = set(offsets)
    async with reader(wiring, partition, SCATTERED_FETCH_BYTES) as consumer:
        beginning = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        open_ -= {offset for offset in open_ if not beginning <= offset < end}
        while open_:
            consumer.seek(partition, min(open_))
            records = [r for some in (await consumer.poll(timeout_seconds=POLL_SECONDS)).values() for r in some]
            for record in records:
                if record.offset in open_:
                    found[record.offset] = _parsed(record, kind), record.timestamp / 1000
            if records:
                # An offset that was passed over holds no event: a control record, or one that was compacted away.
                open_ -= {offset for offset in open_ if offset <= records[-1].offset}
    return found


def _parsed(record: Record, kind: type[E]) -> E | None:
    try:
        return kind.model_validate_json(record.value or b"")
    except ValidationError as error:
        log.warning("unreadable_event", offset=record.offset, problems=error.error_count())
        return None
