"""Appender: writes a round's events, each batch exactly where it is expected, and tells where they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services.planner.draft import Draft
from services.planner.history.takeover import Superseded, gap_is_stale
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book
from shared.contracts import headers
from shared.contracts.base import BATCH_BYTES
from shared.contracts.versions import VERSIONS
from shared.kafka.port import Message, TopicPartition
from shared.telemetry import logs, metrics

log = logs.get(__name__)

_BATCH_BUDGET = BATCH_BYTES - 64 * 1024
_EVENT_OVERHEAD = 260
"""Key, headers, framing and seal of one event, at most."""


@dataclass(slots=True)
class _Batch:
    """One append. `lies`: (place in it, who is told the offset)."""

    messages: list[Message] = field(default_factory=list)
    lies: list[tuple[int, Callable[[int], None]]] = field(default_factory=list)
    size: int = 0


class Appender:
    """The one writer of one partition of `job-events`, as long as every append comes to lie at `expected`."""

    def __init__(self, wiring: Wiring, partition: TopicPartition, book: Book) -> None:
        self._wiring, self._partition = wiring, partition
        self.expected = book.epoch + 1
        """Offset of the next own event."""

    async def append(self, draft: Draft) -> None:
        """The events in as few batches as fit, cut between jobs; inside a job only where its events alone exceed a batch.

        A crash between two batches leaves a prefix of the round, from which recovery drives on.
        Raises Superseded when somebody else has become the owner, SendFailed when a batch's fate is unknown.
        """
        batch = _Batch()
        for group, events in (*draft.ledger.items(), *draft.events.items()):
            weights = [len(value) + _EVENT_OVERHEAD for _, value in events]
            if batch.messages and batch.size + sum(weights) > _BATCH_BUDGET:
                batch = await self._send(batch)
            for index, (weight, (kind, value)) in enumerate(zip(weights, events, strict=True)):
                if batch.messages and batch.size + weight > _BATCH_BUDGET:
                    batch = await self._send(batch)
                batch.lies.extend((len(batch.messages), lies) for lies in draft.lies.get((group, index), ()))
                named = headers.envelope(kind, version=draft.newer.get((group, index), VERSIONS.get(kind, 1)))
                whose = draft.whose.get(group)
                message = Message(self._partition.topic, value, group.encode(), self._partition.partition, named, whose)
                batch.messages.append(message)
                batch.size += weight
        if batch.messages:
            await self._send(batch)

    async def _send(self, batch: _Batch) -> _Batch:
        """Returns an empty one."""
        started = self._wiring.clock.monotonic()
        base = await self._wiring.writer.append(self._partition, batch.messages)
        if base != self.expected:
            await self._inspect(base)
        count = len(batch.messages)
        self.expected = base + count
        for place, lies in batch.lies:
            lies(base + place)
        metrics.EVENTS_APPENDED.inc(count)
        metrics.ROUND_EVENTS.observe(count)
        metrics.ROUND_SECONDS.observe(self._wiring.clock.monotonic() - started)
        return _Batch()

    async def _inspect(self, base: int) -> None:
        """Not the next offset. Stale writers' records in the gap are passed over; anything else means a new owner."""
        if base < self.expected:
            metrics.LOG_TRUNCATIONS.inc()
            log.error("log_truncated", home=self._partition.partition, expected=self.expected, got=base)
            raise Superseded("the append lies before its expected offset, or the broker does not know where")
        if not await gap_is_stale(self._wiring, self._partition, self.expected, base):
            raise Superseded("another planner has started")
