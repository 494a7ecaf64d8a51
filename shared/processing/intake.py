"""Intake: a group consumer whose partitions are read into bounded windows and finished out of order.

Always drained: what a poll returns goes into the windows at once, a partition whose window is full is paused and resumed at half
(notes: an undrained buffer delays the next fetch of all partitions). In a rebalance the windows of partitions that stay are kept and
reading goes on behind them; the others are dropped, and their unfinished records are read again by the next owner. A partition that had
another owner meanwhile, as that of a process that was paused for long, does not stay: its window would take the other's commits back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Self, TypeVar

from shared.clock import Clock
from shared.errors import CommitRefused, InvalidInput, LogError
from shared.kafka.assignor import BalancedAssignor
from shared.kafka.port import Assignor, Log, Record, TopicPartition
from shared.processing.dead_letters import DeadLetterCap
from shared.processing.outbox import Outbox
from shared.processing.tries import read
from shared.processing.window import Window, WindowBounds
from shared.settings import DeadLetterCapSettings
from shared.telemetry import logs, metrics

log = logs.get(__name__)

T = TypeVar("T")

POLL_SECONDS = 1.0
RETRY_SECONDS = 0.5
SETTLE_SECONDS = 2.0
"""What is on its way may take this long before partitions are given up."""
RESUMED_WAIT_MS = 100
"""A resumed partition waits at most this long for the fetch in flight. While nothing is paused nobody waits for its end."""
FETCH_BYTES = 256 * 1024
"""Of one partition in one fetch: a window overshoots its bound by at most this."""


class Intake:
    """One consumer's partitions as windows. `arrived` is called after every poll that brought records, and after an assignment."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        service: str,
        bounds: WindowBounds,
        cap: DeadLetterCapSettings,
        clock: Clock,
        arrived: Callable[[], None],
        leaving: Callable[[], None] = lambda: None,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        """`leaving` is called before partitions are given up: what waits for company is to be sent. `dropped` is called when windows were
        lost: what was taken from them must be forgotten.
        """
        self._outbox = outbox
        self._bounds = bounds
        self._cap = cap
        self._clock = clock
        self._arrived = arrived
        self._leaving = leaving
        self._dropped = dropped
        self._stopped = metrics.STOPPED_PARTITIONS.labels(service)
        self._rebalances = metrics.REBALANCES.labels(service)
        self._complained = False
        self._said: set[str] = set()
        self._committed: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, str | None] = {}
        self._commits = asyncio.Lock()
        self.windows: dict[TopicPartition, Window] = {}
        self.suspended = True
        """Between giving up partitions and the next assignment nothing should be begun: somebody else may begin it too."""
        self.polled_at: float | None = None
        """Monotonic seconds of the last poll that Kafka answered."""

    async def join(
        self,
        log_: Log,
        group: str,
        client_id: str,
        topics: Collection[str],
        *,
        fetch_max_wait_ms: int = 500,
        assignor: Assignor | None = None,
    ) -> Self:
        """Become a member of the group. `fetch_max_wait_ms`: of a fetch while nothing is paused; what is assigned anew may wait for it.
        `assignor`: of partitions that do not stand by themselves.
        """
        self._consumer = await log_.consumer(
            client_id=client_id,
            group=group,
            reset="earliest",
            assignor=assignor or BalancedAssignor(),
            fetch_max_wait_ms=fetch_max_wait_ms,
            paused_max_wait_ms=RESUMED_WAIT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        await self._consumer.subscribe(topics, self)
        return self

    async def close(self) -> None:
        """Leave the group."""
        await self._consumer.close()

    async def drain(self) -> None:
        """The service is told to stop."""
        await self.on_revoked(())

    def take(self, reader: Callable[[Window, Record], T]) -> Iterator[T]:
        """All that the windows let out now, as `reader` makes it; what it cannot read is refused. Nothing while suspended."""
        for window in () if self.suspended else self.windows.values():
            while (record := window.take()) is not None:
                try:
                    made = read(record, partial(reader, window))
                except InvalidInput as error:
                    self.refuse(record, window, error)
                else:
                    yield made

    def refuse(self, record: Record, window: Window, error: Exception) -> None:
        """It can never be worked on: to the dead letters."""
        window.died(record)
        self._outbox.bury(record, error, partial(self.finish, window, record.offset))

    def finish(self, window: Window, offset: int) -> None:
        """What was taken from the window needs nothing more: it may be committed past."""
        window.finish(offset)
        self._arrived()

    async def run(self) -> None:
        """Poll until cancelled. Kafka's absence is waited out; raises ConsumerGaveUp when the consumer has stopped."""
        while True:
            try:
                batches = await self._consumer.poll(timeout_seconds=POLL_SECONDS)
            except LogError as error:
                self._complain("poll_failed", error)
                await self._clock.sleep(RETRY_SECONDS)
                continue
            self.polled_at = self._clock.monotonic()
            assigned = self._consumer.assignment()
            for partition, records in batches.items():
                if records and partition in assigned:
                    self._receive(partition, list(records))
            if batches:
                self._arrived()

    def _receive(self, partition: TopicPartition, records: list[Record]) -> None:
        window = self.windows.get(partition)
        if window is None or records[0].offset < window.next_offset:
            window = self._begin(partition, records[0].offset)
        window.receive(records)
        if window.full and not window.paused:
            window.paused = True
            self._consumer.pause(partition)

    def _begin(self, partition: TopicPartition, offset: int) -> Window:
        """A new window; one that the log went back behind is dead, and so are the promises made from it."""
        old = self.windows.get(partition)
        if old is not None:
            log.warning("log_went_back", topic=partition.topic, partition=partition.partition, offset=offset, expected=old.next_offset)
            old.lost = True
            self._dropped()
        window = self.windows[partition] = Window(partition, self._bounds, offset, DeadLetterCap(partition, self._cap))
        window.paused = old is not None and old.paused
        self._committed.pop(partition, None)
        return window

    def _complain(self, event: str, error: LogError) -> None:
        """Once until a commit succeeds again: Kafka may be away for long."""
        if not self._complained:
            log.warning(event, code=error.code, message=error.message)
        self._complained = True

    @property
    def stopped(self) -> tuple[str, ...]:
        """Of each partition of which too much was dead-lettered: why it stands still. For readiness."""
        return tuple(window.stopped for window in self.windows.values() if window.stopped is not None)

    def _say_what_stopped(self) -> None:
        stopped = self.stopped
        self._stopped.set(len(stopped))
        for reason in stopped:
            if reason not in self._said:
                log.error("dead_letter_cap", reason=reason)
        self._said = set(stopped)

    def relieve(self) -> None:
        """Resume the partitions whose windows are half empty. To be called after records were finished."""
        self._say_what_stopped()
        for partition, window in self.windows.items():
            if window.paused and window.half_empty:
                window.paused = False
                self._consumer.resume(partition)

    async def run_commits(self, seconds: float) -> None:
        """Commit so often, until cancelled."""
        while True:
            await self._clock.sleep(seconds)
            if not self.suspended:
                await self.commit()

    async def commit(self) -> bool:
        """Commit what has become final since the last commit; False when Kafka did not take it (it is tried again next time)."""
        async with self._commits:  # one after the other: an older one that arrives later would take the newer one back
            return await self._commit()

    async def _commit(self) -> bool:
        offsets = {p: offset for p, w in self.windows.items() if (offset := w.commit_offset) != self._committed.get(p)}
        if not offsets:
            return True
        try:
            await self._consumer.commit(offsets)
        except CommitRefused:
            return False  # a rebalance is under way; the assignment that follows tells what is still ours
        except LogError as error:
            self._complain("commit_failed", error)
            return False
        self._complained = False
        self._committed.update((p, offset) for p, offset in offsets.items() if p in self.windows)
        return True

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Begin nothing more; what is on its way may arrive, and is committed past."""
        self.suspended = True
        self._leaving()
        await self._outbox.idle(SETTLE_SECONDS)
        await self.commit()

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._rebalances.inc()
        self._committed.clear()
        anew = self._made_anew(partitions)
        for partition in [p for p in self.windows if p not in partitions or p.topic in anew]:
            self.windows.pop(partition).lost = True
        for partition in await self._overtaken():
            self.windows.pop(partition).lost = True
        self._dropped()
        for partition, window in self.windows.items():
            self._consumer.seek(partition, window.next_offset)
            if window.paused:
                self._consumer.pause(partition)
        self.suspended = False
        log.info("assigned", partitions=len(partitions), kept=len(self.windows))
        self._arrived()

    def identity(self, topic: str) -> str | None:
        """The id of an assigned topic whose records are given; None while it is not known."""
        return self._consumer.identity(topic)

    def _made_anew(self, partitions: Collection[TopicPartition]) -> set[str]:
        """Topics whose windows hold records of another topic of that name: they are read from the beginning."""
        before = self._topic_ids
        self._topic_ids = before | {topic: self._consumer.identity(topic) for topic in {p.topic for p in partitions}}
        return {topic for topic, id_ in self._topic_ids.items() if id_ is not None and before.get(topic, id_) != id_}

    async def _overtaken(self) -> Collection[TopicPartition]:
        """Partitions that somebody else has committed further; all of them when that cannot be known."""
        kept = list(self.windows)
        try:
            committed = await self._consumer.committed(kept) if kept else {}
        except LogError as error:
            self._complain("committed_unknown", error)
            return kept
        return [p for p in kept if (committed[p] or 0) > self.windows[p].commit_offset]
