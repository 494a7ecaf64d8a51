"""Reading without a group: `Tail` follows partitions for ever, `stretches` reads up to given ends.

A Tail waits out Kafka's absence, and reads a topic that is made anew from its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from shared.clock import Clock, within
from shared.errors import LogError, TopicMadeAnew
from shared.kafka.port import Consumer, Log, Record, TopicPartition
from shared.telemetry import logs

log = logs.get(__name__)
_POLL_SECONDS = 1.0
_AGAIN_SECONDS = 0.5
IDLE_WAIT_MS = 2_000
"""Of a fetch that brings nothing; records end it at once."""
ASKED_WAIT_MS = 500
"""Of a reader that is asked to `read_to_end`: the question waits behind the fetch in flight, on its connection."""

Begin = Callable[[TopicPartition, int, int], int]
"""(partition, first offset that the log has, its end): where reading begins."""
Handle = Callable[[TopicPartition, Sequence[Record]], None]


def at_beginning(_: TopicPartition, first: int, end: int) -> int:
    """Read everything there is."""
    return first


def at_end(_: TopicPartition, first: int, end: int) -> int:
    """Start behind everything that exists."""
    return end


class Tail:
    """`positions` is the next offset of each partition, `positioned` is set once they are known."""

    def __init__(
        self,
        log_: Log,
        clock: Clock,
        partitions: Sequence[TopicPartition],
        *,
        client_id: str,
        handle: Handle,
        begin: Begin = at_beginning,
        handled: Callable[[], None] = lambda: None,
        pause_seconds: float = 0.0,
        hurry: asyncio.Event | None = None,
        fetch_max_wait_ms: int = IDLE_WAIT_MS,
    ) -> None:
        """`handled` is called after every poll that brought records. `pause_seconds`: after such a poll, where more may well wait; not
        while `hurry` is set.
        """
        self._wait_ms = fetch_max_wait_ms
        self._log, self._clock, self._partitions = log_, clock, partitions
        self._client_id, self._begin, self._pause, self._hurry = client_id, begin, pause_seconds, hurry
        self._handle, self._handled = handle, handled
        self._consumer: Consumer | None = None
        self._moved, self._caught_up = asyncio.Event(), False
        self.positions: dict[TopicPartition, int] = {}
        self.positioned = asyncio.Event()
        self.ends: dict[TopicPartition, int] = {}
        """End offsets when reading began."""

    async def run(self) -> None:
        """Read until cancelled."""
        self._consumer = await self._log.consumer(client_id=self._client_id, reset="earliest", fetch_max_wait_ms=self._wait_ms)
        try:
            while not self.positioned.is_set():
                await self._patiently(self._position(self._consumer))
            while True:
                await self._patiently(self._read(self._consumer))
        finally:
            await self._consumer.close()

    async def _patiently(self, call: Awaitable[None]) -> None:
        try:
            await call
        except TopicMadeAnew as error:
            log.warning("reader_begins_anew", reader=self._client_id, topic=error.topic)
            anew = {tp: 0 for tp in self._partitions if tp.topic == error.topic}
            self.positions.update(anew)
            self.ends.update(anew)
        except LogError as error:
            log.warning("reader_waits", reader=self._client_id, reason=error.message)
            await self._clock.sleep(_AGAIN_SECONDS)

    async def _position(self, consumer: Consumer) -> None:
        firsts, self.ends = await consumer.beginning_offsets(self._partitions), await consumer.end_offsets(self._partitions)
        consumer.assign(self._partitions)  # not before: the answers would come behind the first fetch
        for tp in self._partitions:
            self.positions[tp] = max(firsts[tp], self._begin(tp, firsts[tp], self.ends[tp]))
            consumer.seek(tp, self.positions[tp])
        self.positioned.set()

    async def _read(self, consumer: Consumer) -> None:
        batches = await consumer.poll(timeout_seconds=_POLL_SECONDS)
        for tp, records in batches.items():
            self._handle(tp, records)
            self.positions[tp] = records[-1].offset + 1
        for tp in self._partitions:
            # Compaction leaves holes and may take the last record away: only the consumer knows how far was read.
            reached = consumer.reached(tp)
            if reached is not None:
                self.positions[tp] = reached
        self._moved.set()
        self._moved.clear()
        if batches:
            self._handled()
            if self._pause and self._hurry is None:
                await self._clock.sleep(self._pause)
            elif self._pause and self._hurry is not None and not self._hurry.is_set():
                await within(self._pause, self._hurry.wait())

    def caught_up(self) -> bool:
        """Whether everything that was there at the beginning has been read."""
        if not self._caught_up:  # else it stays so; this is asked several times a job
            self._caught_up = self.positioned.is_set() and self._passed(self.ends)
        return self._caught_up

    async def read_to(self, ends: Mapping[TopicPartition, int] | None = None) -> None:
        """Return when everything before these offsets is handled: those that were the ends when reading began, if none are given."""
        await self.positioned.wait()
        while not self._passed(self.ends if ends is None else ends):
            await self._moved.wait()

    async def read_to_end(self, *partitions: TopicPartition) -> None:
        """Return when everything that lies in these now is handled. Raises LogError."""
        await self.positioned.wait()
        assert self._consumer is not None
        await self.read_to(await self._consumer.end_offsets(partitions))

    def _passed(self, ends: Mapping[TopicPartition, int]) -> bool:
        return all(self.positions[tp] >= end for tp, end in ends.items())


async def stretches(consumer: Consumer, spans: Mapping[TopicPartition, tuple[int, int]]) -> AsyncIterator[Sequence[Record]]:
    """What each poll brings of [start, end) of the partitions, until all is read: also nothing. Raises LogError."""
    consumer.assign(spans.keys())
    firsts = await consumer.beginning_offsets(spans.keys())
    behind = {tp for tp, (start, end) in spans.items() if max(start, firsts[tp]) < end}
    for tp in behind:
        consumer.seek(tp, max(spans[tp][0], firsts[tp]))
    while behind:
        batches = await consumer.poll(timeout_seconds=_POLL_SECONDS, partitions=behind)
        yield [
            record
            for records in batches.values()
            for record in records
            if record.offset < spans[TopicPartition(record.topic, record.partition)][1]
        ]
        # By position, since records may be gone.
        behind = {tp for tp in behind if await consumer.position(tp) < spans[tp][1]}
