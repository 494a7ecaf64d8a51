"""A log whose consumers are watched: one that has silently stopped is given up, and with it the process, since a new one does better.

    log = WatchedLog(AioLog(servers, clock), clock)

Nothing else changes for the callers. End offsets come from a client of the watchdog's own: the stuck one is not asked about itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from typing import Protocol, Unpack

from shared.clock import Clock
from shared.errors import ConsumerGaveUp, LogError
from shared.kafka.client.watchdog import Sight, Watchdog, WatchdogLimits
from shared.kafka.port import Consumer, ConsumerOptions, Log, MissedRecords, RebalanceListener, Record, TopicPartition
from shared.kafka.settings import CALL_SECONDS
from shared.tasks import beside, ended


class _Open(Protocol):
    """A client of the watchdog's own; `of_group`: which may commit, in a group beside the watched one."""

    async def __call__(self, of_group: bool = False) -> Consumer: ...


class WatchedLog:
    """Implements `port.Log` on another one."""

    def __init__(
        self,
        inner: Log,
        clock: Clock,
        *,
        limits: WatchdogLimits | None = None,
        missed: Callable[[Sequence[MissedRecords]], None] = lambda _: None,
    ) -> None:
        """`missed` is told of records that were deleted before one of the consumers came to them."""
        self._inner, self._clock, self._limits, self._missed = inner, clock, limits or WatchdogLimits(), missed
        self.producer, self.admin, self.close = inner.producer, inner.admin, inner.close

    @property
    def trouble(self) -> str | None:
        return self._inner.trouble

    @property
    def unheard(self) -> bool:
        return self._inner.unheard

    async def consumer(self, **options: Unpack[ConsumerOptions]) -> _WatchedConsumer:
        client_id, group = f"{options['client_id']}-watchdog", f"{options.get('group')}-watchdog"

        async def open_probe(of_group: bool = False) -> Consumer:
            committed = options.get("committed_only", False)  # else what waits behind an open transaction would look unread
            return await self._inner.consumer(client_id=client_id, group=group if of_group else None, committed_only=committed)

        return _WatchedConsumer(await self._inner.consumer(**options), open_probe, self._clock, self._limits, self._missed)


class _WatchedConsumer:
    """Implements `port.Consumer`."""

    def __init__(
        self, inner: Consumer, open_probe: _Open, clock: Clock, limits: WatchdogLimits, missed: Callable[[Sequence[MissedRecords]], None]
    ) -> None:
        self._inner, self._open_probe, self._clock, self._limits, self._tell_missed = inner, open_probe, clock, limits, missed
        self._dog = Watchdog(limits)
        self._tap = _Tap(self._paused_nothing)
        self._paused: set[TopicPartition] = set()
        self._asked: set[TopicPartition] = set()
        self._topics: Collection[str] = ()
        self._polls = 0
        self._polling: asyncio.Timeout | None = None
        """The poll under way: it is broken off by its timeout."""
        self._why: str | None = None
        """The consumer has stopped; no poll returns any more."""
        self._watch: asyncio.Task[None] | None = None
        # All else is the client's own.
        self.commit, self.committed = inner.commit, inner.committed
        self.position, self.seek, self.reached, self.held_back = inner.position, inner.seek, inner.reached, inner.held_back
        self.beginning_offsets, self.end_offsets, self.offset_at = inner.beginning_offsets, inner.end_offsets, inner.offset_at
        self.identity, self.assignment, self.missed = inner.identity, inner.assignment, inner.missed

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._paused_nothing()
        self._inner.assign(partitions)
        self._start_watch()

    async def subscribe(self, topics: Collection[str], listener: RebalanceListener | None = None) -> None:
        self._tap.listener, self._tap.waiting, self._topics = listener, True, topics
        await self._inner.subscribe(topics, self._tap)
        self._start_watch()

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """As `port.Consumer`. Raises ConsumerGaveUp when the consumer has stopped."""
        if self._why is not None:
            raise ConsumerGaveUp(self._why)
        self._asked.update(self._inner.assignment() if partitions is None else partitions)
        self._polls += 1
        try:
            async with asyncio.timeout(None) as self._polling:
                found = await self._inner.poll(timeout_seconds=timeout_seconds, max_records=max_records, partitions=partitions)
        except TimeoutError:
            raise ConsumerGaveUp(self._why) from None
        finally:
            self._polling = None
        if self.missed:
            self._tell_missed(tuple(self.missed))
            self.missed.clear()
        return found

    def pause(self, *partitions: TopicPartition) -> None:
        self._inner.pause(*partitions)
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._inner.resume(*partitions)
        self._paused.difference_update(partitions)

    async def close(self) -> None:
        if self._watch is not None:
            await ended(self._watch)
        await self._inner.close()

    def _paused_nothing(self) -> None:
        """A new assignment."""
        self._paused.clear()
        self._asked.clear()

    # Watching

    def _start_watch(self) -> None:
        if self._watch is None:
            self._watch = beside(self._keep_looking(), "watchdog")

    async def _keep_looking(self) -> None:
        probe: Consumer | None = None
        try:
            while self._why is None:
                await self._clock.sleep(self._limits.look)
                begun = self._clock.monotonic()
                try:
                    if self._tap.waiting and probe is not None:  # a new client connects only to a cluster that answers
                        await probe.close()
                        probe = None
                    probe = probe or await self._open_probe()
                    if reason := self._dog.look(await self._see(probe)):
                        self._why = ", ".join((reason, *self._dog.stuck))
                except LogError:
                    begun = -inf
                    if probe is not None:
                        await probe.close()
                    probe = None
                if self._clock.monotonic() - begun > 2 * CALL_SECONDS:
                    self._dog = Watchdog(self._limits)  # what was seen before the cluster was away says nothing
            if self._polling is not None:
                self._polling.reschedule(asyncio.get_running_loop().time())
        finally:
            if probe is not None:
                await probe.close()

    async def _see(self, probe: Consumer) -> Sight:
        """Raises LogError when the cluster does not answer: then nothing is known and nobody to blame."""
        if self._tap.waiting:
            await self._commit_beside()
        asked, self._asked = self._asked, set()
        watched = [tp for tp in self._inner.assignment() if tp in asked and tp not in self._paused]
        ends = await probe.end_offsets(watched) if watched else {}
        positions = await asyncio.gather(*(self._position(tp) for tp in ends))
        partitions = {tp: (position, ends[tp]) for tp, position in zip(ends, positions, strict=True)}
        return Sight(partitions, self._tap.waiting, None if self._polling is None else self._polls)

    async def _commit_beside(self) -> None:
        """Raises LogError while Kafka takes no commits, as with fewer replicas than it wants: it serves reads then, and assigns nothing to
        any group.
        """
        beside = await self._open_probe(of_group=True)
        try:
            place = TopicPartition(min(self._topics), 0)
            beside.assign([place])
            await beside.commit({place: 0})
        finally:
            await beside.close()

    async def _position(self, tp: TopicPartition) -> int | None:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._inner.position(tp)
        except (LogError, TimeoutError):
            return None


class _Tap:
    """Passes rebalances on, and notes whether the consumer waits for one to end."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.listener: RebalanceListener | None = None
        self.waiting = False

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.waiting = True
        if self.listener is not None:
            await self.listener.on_revoked(partitions)
        self._on_change()

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.waiting = False
        self._on_change()
        if self.listener is not None:
            await self.listener.on_assigned(partitions)
