"""A log whose consumers are watched: one that has silently stopped is closed and rebuilt, counted, and given up after three times.

    log = WatchedLog(AioLog(servers, clock), clock, random, service="router")

Nothing else changes for the callers: a rebuild looks like a rebalance (`on_revoked`, `on_assigned`), or, after `assign`, like nothing at
all, since positions and pauses are kept. End offsets come from a client of the watchdog's own: the stuck one is not asked about itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableSequence, Sequence
from random import Random
from typing import Literal, Unpack

from shared.clock import Clock
from shared.errors import LogError, TopicMadeAnew
from shared.kafka.client.watchdog import Progress, Reason, Vitals, WatchdogLimits, diagnose, may_rebuild, observe, pause_seconds
from shared.kafka.port import (
    Admin,
    Consumer,
    ConsumerOptions,
    HeldBack,
    Log,
    MissedRecords,
    Producer,
    RebalanceListener,
    Record,
    TopicPartition,
    identities,
)
from shared.kafka.settings import CALL_SECONDS
from shared.telemetry import logs
from shared.telemetry.metrics import CONSUMER_REBUILDS

log = logs.get(__name__)

Open = Callable[[], Awaitable[Consumer]]


class ConsumerGaveUp(LogError):
    """The consumer stops again and again; the process should end and be started anew."""

    retryable = False


class WatchedLog:
    """Implements `port.Log` on another one."""

    def __init__(
        self,
        inner: Log,
        clock: Clock,
        random: Random,
        *,
        service: str,
        limits: WatchdogLimits | None = None,
        missed: Callable[[Sequence[MissedRecords]], None] = lambda _: None,
    ) -> None:
        """`missed` is told of records that were deleted before one of the consumers came to them."""
        self._missed = missed
        self._inner, self._clock, self._random, self._service = inner, clock, random, service
        self._limits = limits or WatchdogLimits()

    async def producer(self, *, client_id: str, acks: Literal["all", 1] = "all", linger_ms: int = 0) -> Producer:
        return await self._inner.producer(client_id=client_id, acks=acks, linger_ms=linger_ms)

    async def consumer(self, **options: Unpack[ConsumerOptions]) -> WatchedConsumer:
        async def open_inner() -> Consumer:
            return await self._inner.consumer(**options)

        async def open_probe() -> Consumer:
            return await self._inner.consumer(client_id=f"{options['client_id']}-watchdog")

        first = await open_inner()
        return WatchedConsumer(
            first,
            open_inner,
            open_probe,
            self._clock,
            self._random,
            service=self._service,
            limits=self._limits,
            missed=self._missed,
        )

    async def admin(self) -> Admin:
        return await self._inner.admin()

    async def close(self) -> None:
        await self._inner.close()


class WatchedConsumer:
    """Implements `port.Consumer`. Rebuilds happen inside `poll`, so they never overlap with the caller's own work on the consumer."""

    def __init__(
        self,
        first: Consumer,
        open_inner: Open,
        open_probe: Open,
        clock: Clock,
        random: Random,
        *,
        service: str,
        limits: WatchdogLimits,
        missed: Callable[[Sequence[MissedRecords]], None],
    ) -> None:
        self._inner = first
        self._tell_missed = missed
        self._open_inner, self._open_probe = open_inner, open_probe
        self._clock, self._random, self._service, self._limits = clock, random, service, limits
        self._topics: Collection[str] = ()
        self._by_hand = False
        self._tap = _Tap(clock, self._forget_positions)
        self._next: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._asked: set[TopicPartition] = set()
        self._progress: Progress = {}
        self._rebuilt_at: list[float] = []
        self._watch: asyncio.Task[None] | None = None

    def assign(self, partitions: Collection[TopicPartition], topic_ids: Mapping[str, str] | None = None) -> None:
        self._by_hand = True
        self._forget_positions()
        self._inner.assign(partitions, topic_ids)
        self._start_watch()

    async def subscribe(self, topics: Collection[str], listener: RebalanceListener | None = None) -> None:
        self._topics = topics
        self._tap.listener = listener
        self._tap.waiting_since = self._clock.monotonic()
        await self._inner.subscribe(topics, self._tap)
        self._start_watch()

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """As `port.Consumer`. Raises ConsumerGaveUp when rebuilding did not help."""
        reason = diagnose(Vitals(self._clock.monotonic(), self._tap.waiting_since, self._progress), self._limits)
        if reason is not None:
            await self._rebuild(reason)
        self._asked.update(self._inner.assignment() if partitions is None else partitions)
        try:
            async with asyncio.timeout(timeout_seconds + self._limits.hung_poll):
                found = await self._inner.poll(timeout_seconds=timeout_seconds, max_records=max_records, partitions=partitions)
        except TopicMadeAnew as error:
            self._next = {tp: offset for tp, offset in self._next.items() if tp.topic != error.topic}
            raise
        except TimeoutError:
            await self._rebuild(Reason.HUNG_POLL)
            return {}
        for tp, records in found.items():
            self._next[tp] = records[-1].offset + 1
        if self._inner.missed:
            self._tell_missed(tuple(self._inner.missed))
            self._inner.missed.clear()
        return found

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self._inner.commit(offsets)

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
        return await self._inner.committed(partitions)

    async def position(self, partition: TopicPartition) -> int:
        return await self._inner.position(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._inner.seek(partition, offset)
        self._next[partition] = offset

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._inner.beginning_offsets(partitions)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._inner.end_offsets(partitions)

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        return await self._inner.offset_at(partition, timestamp_ms)

    @property
    def missed(self) -> MutableSequence[MissedRecords]:
        return self._inner.missed

    def identity(self, topic: str) -> str | None:
        return self._inner.identity(topic)

    def reached(self, partition: TopicPartition) -> int | None:
        return self._inner.reached(partition)

    def held_back(self) -> dict[TopicPartition, HeldBack]:
        return self._inner.held_back()

    def pause(self, *partitions: TopicPartition) -> None:
        self._inner.pause(*partitions)
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._inner.resume(*partitions)
        self._paused.difference_update(partitions)

    def assignment(self) -> frozenset[TopicPartition]:
        return self._inner.assignment()

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self._inner.close()

    # Watching

    def _start_watch(self) -> None:
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._keep_looking())

    async def _keep_looking(self) -> None:
        probe: Consumer | None = None
        try:
            while True:
                await self._clock.sleep(self._limits.look)
                try:
                    probe = probe or await self._open_probe()
                    await self._look(probe)
                except LogError:
                    # Time without looks is no stall: a partition that was behind when the cluster went away would seem one.
                    self._progress = {}
                    if probe is not None:
                        await probe.close()
                    probe = None
        finally:
            if probe is not None:
                await probe.close()

    async def _look(self, probe: Consumer) -> None:
        """One look at what is asked for. Raises LogError when the cluster does not answer: then nothing is known and nobody to blame."""
        asked, self._asked = self._asked, set()
        watched = [tp for tp in self._inner.assignment() if tp in asked and tp not in self._paused]
        ends = await probe.end_offsets(watched) if watched else {}
        positions = await asyncio.gather(*(self._position(tp) for tp in ends))
        sample = {tp: (position, ends[tp]) for tp, position in zip(ends, positions, strict=True)}
        self._progress = observe(self._progress, sample, self._clock.monotonic())

    async def _position(self, tp: TopicPartition) -> int | None:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._inner.position(tp)
        except (LogError, TimeoutError):
            return None

    # Rebuilding

    async def _rebuild(self, reason: Reason) -> None:
        now = self._clock.monotonic()
        CONSUMER_REBUILDS.labels(self._service, reason.value).inc()
        log.error("consumer_rebuilt", reason=reason.value, rebuilds=len(self._rebuilt_at))
        if not may_rebuild(self._rebuilt_at, now, self._limits):
            raise ConsumerGaveUp(f"the consumer stopped {self._limits.rebuilds + 1} times: {reason.value}")
        self._rebuilt_at = [*self._rebuilt_at[-self._limits.rebuilds :], now]
        assigned, topic_ids = self._inner.assignment(), identities(self._inner)
        await self._tap.lose_all()
        await self._inner.close()
        await self._clock.sleep(pause_seconds(len(self._rebuilt_at), self._random.random(), self._limits))
        self._inner = await self._open_inner()
        self._progress = {}
        await self._resume_reading(assigned, topic_ids)

    async def _resume_reading(self, assigned: Collection[TopicPartition], topic_ids: Mapping[str, str]) -> None:
        if not self._by_hand:
            self._tap.waiting_since = self._clock.monotonic()
            await self._inner.subscribe(self._topics, self._tap)
            return
        self._inner.assign(assigned, topic_ids)
        for tp in assigned:
            if tp in self._next:
                self._inner.seek(tp, self._next[tp])
        self._inner.pause(*self._paused)

    def _forget_positions(self) -> None:
        self._next.clear()
        self._paused.clear()
        self._asked.clear()


class _Tap:
    """Passes rebalances on, and notes since when the consumer waits for one to end."""

    def __init__(self, clock: Clock, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._owned: frozenset[TopicPartition] = frozenset()
        self.listener: RebalanceListener | None = None
        self.waiting_since: float | None = None

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.waiting_since = self._clock.monotonic()
        self._owned = frozenset()
        if self.listener is not None:
            await self.listener.on_revoked(partitions)
        self._on_change()

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.waiting_since = None
        self._owned = frozenset(partitions)
        self._on_change()
        if self.listener is not None:
            await self.listener.on_assigned(partitions)

    async def lose_all(self) -> None:
        """A rebuilt consumer owns nothing until it has joined again. What the old one cannot do any more is no reason to stop."""
        if not self._owned:
            return
        try:
            await self.on_revoked(self._owned)
        except LogError as error:
            log.warning("revoke_failed", error=error.message)
