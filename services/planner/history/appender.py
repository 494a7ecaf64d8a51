"""Appender: writes a round's events, each batch exactly where it is expected, and learns where jobs begin."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.planner.history.takeover import Superseded, gap_is_stale
from services.planner.round import Round
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book
from services.planner.state.carried_ids import NAME as IDS
from services.planner.state.watermark import UNACKNOWLEDGED
from shared.contracts import headers
from shared.contracts.base import BATCH_BYTES
from shared.contracts.event import VERSIONS
from shared.kafka.port import Message, TopicPartition
from shared.telemetry import logs, metrics

log = logs.get(__name__)

_BATCH_BUDGET = BATCH_BYTES - 64 * 1024
_EVENT_OVERHEAD = 200
"""Key, headers and framing of one event, at most."""


@dataclass(slots=True)
class _Batch:
    """One append. `begins`, `ends`: job → place of its first and of its settle event."""

    messages: list[Message] = field(default_factory=list)
    begins: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    size: int = 0


class Appender:
    """The one writer of one partition of `job-events`, as long as every append comes to lie at `expected`."""

    def __init__(self, wiring: Wiring, partition: TopicPartition, book: Book) -> None:
        self._wiring, self._partition, self._book = wiring, partition, book
        self.expected = book.epoch + 1
        """Offset of the next own event."""
        self._cut: dict[str, int] = {}
        """Where the job begins whose events of this round are not all acknowledged."""

    async def append(self, round_: Round) -> None:
        """The events in as few batches as fit, cut between jobs; inside a job only where its events alone exceed a batch.

        A crash between two batches leaves a prefix of the round, from which recovery drives on. A snapshot that is cut counts when its last
        part is acknowledged: until then the job's old events are its history.
        Raises Superseded when somebody else has become the owner, SendFailed when a batch's fate is unknown.
        """
        batch = _Batch()
        for job, events in (*round_.ledger.items(), *round_.events.items()):
            weights = [len(value) + _EVENT_OVERHEAD for _, value in events]
            if batch.messages and batch.size + sum(weights) > _BATCH_BUDGET:
                batch = await self._send(batch)
            for index, (weight, (kind, value)) in enumerate(zip(weights, events, strict=True)):
                if batch.messages and batch.size + weight > _BATCH_BUDGET:
                    batch = await self._send(batch, unfinished=job)
                place = len(batch.messages)
                if round_.firsts.get(job) == index or job in round_.ledger:
                    batch.begins[job] = place
                if round_.ends.get(job) == index:
                    batch.ends[job] = place
                message = Message(
                    self._partition.topic,
                    value,
                    job.encode(),
                    self._partition.partition,
                    headers.envelope(kind, version=VERSIONS.get(kind, 1)),
                )
                batch.messages.append(message)
                batch.size += weight
        if batch.messages:
            await self._send(batch)

    async def _send(self, batch: _Batch, unfinished: str | None = None) -> _Batch:
        """Returns an empty one. `unfinished`: the job whose events go on in the next, if it was cut."""
        started = self._wiring.clock.monotonic()
        base = await self._wiring.writer.append(self._partition, batch.messages)
        if base != self.expected:
            await self._inspect(base)
        now, count = self._wiring.clock.monotonic(), len(batch.messages)
        self.expected = base + count
        self._cut.update({job: base + place for job, place in batch.begins.items()})
        for job in [job for job in self._cut if job != unfinished or not self._is_written_again(job)]:
            self._begins_at(job, self._cut.pop(job))
        for job, place in batch.ends.items():
            self._book.settled_at(job, base + place, now)
        metrics.EVENTS_APPENDED.inc(count)
        metrics.ROUND_EVENTS.observe(count)
        metrics.ROUND_SECONDS.observe(now - started)
        return _Batch()

    def _is_written_again(self, job_id: str) -> bool:
        job = self._book.jobs.get(job_id)
        return job is not None and job.first_offset != UNACKNOWLEDGED

    def _begins_at(self, job_id: str, offset: int) -> None:
        """The first event of a new job, a snapshot or what is carried is acknowledged at `offset`."""
        self._book.runs.begins_at(job_id, offset)
        job = self._book.jobs.get(job_id)
        if job is not None:
            if job.first_offset != UNACKNOWLEDGED:
                self._book.jobs.move_to_end(job_id)
            job.first_offset = offset
        elif job_id == IDS:
            self._book.carried_ids.begins_at(offset)
        elif job_id.startswith("#"):
            self._book.funds.begins_at(job_id, offset)
        elif job_id in self._book.cancels:
            self._book.cancels.begins_at(job_id, offset)

    async def _inspect(self, base: int) -> None:
        """Not the next offset. Stale writers' records in the gap are passed over; anything else means a new owner."""
        if base < self.expected:
            metrics.LOG_TRUNCATIONS.inc()
            log.error("log_truncated", home=self._partition.partition, expected=self.expected, got=base)
            raise Superseded("the append lies before its expected offset, or the broker does not know where")
        if not await gap_is_stale(self._wiring, self._partition, self.expected, base):
            raise Superseded("another planner has started")
