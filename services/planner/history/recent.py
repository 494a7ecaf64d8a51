"""RecentIds: the client-given ids that ended before the watermark, read back after a take-over.

A client may send its id again within the window (an hour) and must get the same result, not a second run; the successor has replayed
only from the watermark on. The rest of the window is read in the background; jobs with client-given ids wait for that, others do not.
"""

from __future__ import annotations

from pydantic import ValidationError

from services.planner.engine.settled import SettledIds
from services.planner.history.takeover import read_range
from services.planner.wiring import Wiring
from shared.contracts.event import EVENT, Event, JobSettled, PlannerStarted
from shared.kafka.port import Record, TopicPartition
from shared.telemetry import logs

log = logs.get(__name__)


class SettleEvents:
    """Valid settle events of a stretch of `job-events` that begins anywhere. Feed every record in order, then take `valid`.

    Epochs only grow: before the first PlannerStarted of the stretch the epoch in force is the highest seen, a fenced writer's is lower.
    """

    def __init__(self) -> None:
        self._epoch = -1
        self._open: list[JobSettled] = []
        self._closed: list[JobSettled] = []
        self._started = False

    def feed(self, offset: int, event: Event) -> None:
        if isinstance(event, PlannerStarted):
            self._closed.extend(self._of_epoch())
            self._open, self._epoch, self._started = [], offset, True
            return
        if not self._started:
            self._epoch = max(self._epoch, event.epoch)
        if isinstance(event, JobSettled) and event.client_id:
            self._open.append(event)

    def valid(self) -> list[JobSettled]:
        """In log order."""
        return [*self._closed, *self._of_epoch()]

    def _of_epoch(self) -> list[JobSettled]:
        return [event for event in self._open if event.epoch == self._epoch]


async def read_back(wiring: Wiring, partition: TopicPartition, until: int, known: SettledIds, window_seconds: float) -> None:
    """Put what ended within the window and before offset `until` into `known`. Raises LogError."""
    wall, now = wiring.clock.wall(), wiring.clock.monotonic()
    start = await wiring.consumer.offset_at(partition, int((wall - window_seconds) * 1000))
    if start >= until:
        return
    found = SettleEvents()

    def visit(record: Record) -> None:
        try:
            found.feed(record.offset, EVENT.validate_json(record.value or b""))
        except ValidationError as error:
            log.warning("unreadable_event", offset=record.offset, problems=error.error_count())

    await read_range(wiring, partition, start, until, visit)
    for settled in reversed(found.valid()):
        if not known.add_older(settled, now - max(0.0, wall - settled.at)):
            return
