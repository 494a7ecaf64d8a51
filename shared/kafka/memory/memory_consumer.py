"""The in-memory log's consumer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from shared.errors import CommitRefused, LogError, LogUnavailable, TopicMadeAnew
from shared.kafka.memory.memory_cluster import MemoryCluster
from shared.kafka.memory.memory_group import GroupMember, MemoryGroup
from shared.kafka.memory.memory_partition import MemoryPartition
from shared.kafka.memory.memory_process import MemoryProcess, ProcessState
from shared.kafka.port import MISSED, Assignor, HeldBack, MissedRecords, RebalanceListener, Record, Reset, TopicPartition
from shared.kafka.settings import PACE_RECORDS, POLL_RECORDS, SILENCE_SECONDS


class MemoryConsumer:
    """Implements `port.Consumer`. `_positions` holds what is assigned; a position is None until the first poll needs it."""

    def __init__(
        self,
        log: MemoryCluster,
        process: MemoryProcess,
        *,
        client_id: str,
        group: MemoryGroup | None,
        reset: Reset,
        assignor: Assignor,
        fetch_bytes: int,
        committed_only: bool,
    ) -> None:
        self.missed: deque[MissedRecords] = deque(maxlen=MISSED)
        self._log = log
        self._process = process
        self._client_id = client_id
        self._group = group
        self._reset = reset
        self._fetch_bytes = fetch_bytes
        self._assignor = assignor
        self._committed_only = committed_only
        self._topic_ids: dict[str, str] = {}
        self._topics_version = -1
        self._positions: dict[TopicPartition, int | None] = {}
        self._ready: dict[TopicPartition, None] = {}
        self._paused: set[TopicPartition] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._member: GroupMember | None = None
        self._membership: asyncio.Task[None] | None = None
        self._rejoin = asyncio.Event()
        self._listener: RebalanceListener | None = None
        self._generation = -1
        self._answered_at = log.clock.monotonic()
        self._brought_many = False
        self._assigned = True
        self._failure: BaseException | None = None
        self._closed = False
        process.own(self)

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        assert self._member is None, "assign and subscribe exclude each other"
        self._take_over(partitions)

    async def subscribe(self, topics: Collection[str], listener: RebalanceListener | None = None) -> None:
        assert self._group is not None, "subscribe needs a group"
        assert self._member is None, "subscribe is called once"
        self._listener = listener
        self._assigned = False
        self._member = GroupMember(self._client_id, frozenset(topics), self._assignor, self._rejoin.set)
        self._rejoin.set()
        self._membership = asyncio.get_running_loop().create_task(self._keep_membership(self._group, self._member))
        self._membership.add_done_callback(self._on_membership_ended)

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        assert max_records is None or max_records > 0, "max_records is positive"
        if self._brought_many:
            await self._log.clock.sleep(0)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            now = loop.time()
            self._check()
            if self._process.blocked:
                await self._process.gate_until_running()
                next_at = None
                if self._log.availability.absence is not None and now >= deadline:
                    return self._nothing()
                self._log.availability.call(self._wake)
            else:
                self._answered_at = self._log.clock.monotonic()
                self._look_at_topics()
                found, next_at = self._take(now, max_records, partitions)
                if found or now >= deadline:
                    self._brought_many = sum(map(len, found.values())) >= PACE_RECORDS
                    return found
            await self._wait(loop, min(deadline, next_at or deadline) - now)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        assert self._group is not None, "a commit needs a group"
        foreign = [tp for tp in offsets if tp not in self._positions]
        if foreign:
            raise CommitRefused(f"{foreign[0]} is not assigned")
        generation = self._generation
        topic_ids = dict(self._topic_ids)
        await self._call()
        self._group.commit(self._member, generation, offsets, topic_ids)

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
        assert self._group is not None, "committed offsets need a group"
        await self._call()
        return {tp: self._group.committed(tp) for tp in partitions}

    async def position(self, partition: TopicPartition) -> int:
        await self._call()
        if partition not in self._positions:
            raise LogError(f"{partition} is not assigned")
        found = self._log.partition(partition)
        return self._resolve(partition, found) if found else 0

    def seek(self, partition: TopicPartition, offset: int) -> None:
        assert offset >= 0, "an offset is not negative"
        if partition not in self._positions:
            raise LogError(f"{partition} is not assigned")
        self._positions[partition] = offset
        self.on_written(partition)

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        await self._call()
        return {tp: self._log.existing(tp).begin for tp in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        await self._call()
        found = {tp: self._log.existing(tp) for tp in partitions}
        return {tp: partition.stable_end if self._committed_only else partition.end for tp, partition in found.items()}

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        await self._call()
        found = self._log.existing(partition)
        return next((record.offset for record in found.records if record.timestamp >= timestamp_ms), found.end)

    def identity(self, topic: str) -> str | None:
        return self._topic_ids.get(topic)

    def reached(self, partition: TopicPartition) -> int | None:
        return self._positions.get(partition)

    def held_back(self) -> dict[TopicPartition, HeldBack]:
        if not self._committed_only:
            return {}
        found = {tp: partition for tp in self._positions if (partition := self._log.partition(tp))}
        return {tp: HeldBack(p.stable_end, p.end - p.stable_end) for tp, p in found.items() if p.end > p.stable_end}

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(tp for tp in partitions if tp in self._positions)

    def resume(self, *partitions: TopicPartition) -> None:
        for tp in partitions:
            if tp in self._paused:
                self._paused.discard(tp)
                self.on_written(tp)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._positions)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._end_membership()
        if self._group is not None and self._member is not None and self._process.state is ProcessState.RUNNING:
            self._group.leave(self._member)
        self._release()
        self._process.disown(self)
        self._wake()

    # What log, process and group call

    def on_written(self, partition: TopicPartition) -> None:
        """There may be something to read in `partition`."""
        self._ready[partition] = None
        if self._waiters:
            self._wake()

    def on_topics_changed(self) -> None:
        """Topics came or went."""
        self._wake()

    def on_killed(self) -> None:
        if self._membership is not None:
            self._membership.cancel()
        self.on_frozen()
        self._release()

    def on_frozen(self) -> None:
        if self._group is not None and self._member is not None and self._group.contains(self._member):
            self._group.stop_heartbeats(self._member)

    def on_thawed(self) -> None:
        if self._group is not None and self._member is not None and self._member.id:
            self._group.resume_heartbeats(self._member)

    def evict(self) -> None:
        """The broker throws this member out of its group."""
        assert self._group is not None
        assert self._member is not None
        self._group.evict(self._member)

    # Reading

    def _take(
        self, now: float, max_records: int | None, partitions: Collection[TopicPartition] | None
    ) -> tuple[dict[TopicPartition, Sequence[Record]], float | None]:
        """What is readable now, and when more will be."""
        found: dict[TopicPartition, Sequence[Record]] = {}
        next_at: float | None = None
        if not self._assigned:
            return found, None
        room = max_records or POLL_RECORDS
        for tp in list(self._ready):
            if room <= 0:
                break
            if tp in self._paused or (partitions is not None and tp not in partitions):
                continue
            del self._ready[tp]
            records, visible_at = self._read(tp, room, now)
            if visible_at is not None:
                self._ready[tp] = None
                next_at = visible_at if next_at is None else min(next_at, visible_at)
            if records:
                found[tp] = records
                room -= len(records)
        return found, next_at

    def _read(self, tp: TopicPartition, limit: int, now: float) -> tuple[Sequence[Record], float | None]:
        """Up to `limit` records; and when the next one after them becomes visible (perhaps it is), None when there is none."""
        partition = self._log.partition(tp)
        if partition is None or tp not in self._positions or self._topic_ids.get(tp.topic) != self._log.topic_ids[tp.topic]:
            return (), None
        records, position = partition.read(self._resolve(tp, partition), limit, self._fetch_bytes, now)
        if self._committed_only and position > partition.stable_end:
            records = [record for record in records if record.offset < partition.stable_end]
            position = partition.stable_end
        self._positions[tp] = position
        return records, None if self._committed_only and position >= partition.stable_end else partition.next_visible_at(position)

    def _look_at_topics(self) -> None:
        """What was made anew begins at its beginning. Members of a group learn of it by a rebalance. Raises TopicMadeAnew."""
        if self._topics_version == self._log.topics_version or self._member is not None:
            return
        for topic in sorted({tp.topic for tp in self._positions} & set(self._log.topics)):
            known, present = self._topic_ids.get(topic), self._log.topic_ids[topic]
            self._topic_ids[topic] = present
            if known not in (None, present):
                for tp in [tp for tp in self._positions if tp.topic == topic]:
                    self._positions[tp] = self._log.existing(tp).begin
                    self._ready[tp] = None
                raise TopicMadeAnew(topic)
        self._topics_version = self._log.topics_version

    def _resolve(self, tp: TopicPartition, partition: MemoryPartition) -> int:
        """The position: committed or by reset policy at first, by reset policy when retention or truncation overtook it."""
        position = self._positions[tp]
        if position is None and self._group is not None:
            position = self._group.committed(tp)
        if position is None or not partition.begin <= position <= partition.end:
            if self._reset == "none":
                raise LogError(f"no valid offset for {tp}: {position}")
            wanted, position = position, partition.begin if self._reset == "earliest" else partition.end
            if wanted is not None:
                self.missed.append(MissedRecords(tp, wanted, position))
        self._positions[tp] = position
        return position

    def _check(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._closed:
            raise LogError("the consumer is closed")

    async def _wait(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        waiter = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(max(0.0, seconds), _resolve_waiter, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    def _nothing(self) -> dict[TopicPartition, Sequence[Record]]:
        """The answer of a cluster that is away: none, or an error if calls fail or what is asked for had no answer for long."""
        now = self._log.clock.monotonic()
        if not self._positions.keys() - self._paused:
            self._answered_at = now
        if self._log.availability.absence == "fails" or now - self._answered_at > SILENCE_SECONDS:
            raise LogUnavailable
        return {}

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            _resolve_waiter(waiter)

    async def _call(self) -> None:
        """One request to the cluster and its answer."""
        faults = self._log.faults
        try:
            if self._process.blocked:
                await self._process.gate()
            await self._log.clock.sleep(faults.draw(faults.call_seconds))
        except asyncio.CancelledError:
            if self._process.state is ProcessState.KILLED or not faults.loses_cancellation():
                raise

    # Membership

    async def _keep_membership(self, group: MemoryGroup, member: GroupMember) -> None:
        while True:
            await self._rejoin.wait()
            await self._process.gate_patiently()
            self._rejoin.clear()
            if not group.wants(member):
                continue
            await self._revoke()
            await self._process.gate_patiently()
            joined = await group.join(member)
            await self._process.gate_patiently()
            if joined is None:
                self._rejoin.set()
                continue
            self._generation = joined.generation
            self._take_over(joined.partitions)
            self._assignor.on_assignment(joined.partitions)
            if self._listener is not None:
                await self._listener.on_assigned(joined.partitions)
            self._assigned = True
            self._wake()

    async def _revoke(self) -> None:
        """Polling stops; commits are possible until the listener returns."""
        self._assigned = False
        if self._listener is not None and self._positions:
            await self._listener.on_revoked(frozenset(self._positions))
        self._release()

    def _take_over(self, partitions: Collection[TopicPartition]) -> None:
        self._release()
        self._topic_ids = {tp.topic: self._log.topic_ids[tp.topic] for tp in partitions if tp.topic in self._log.topics}
        self._topics_version = self._log.topics_version
        self._positions = dict.fromkeys(partitions)
        self._ready = dict.fromkeys(partitions)
        self._log.watch(self, partitions)
        self._wake()

    def _release(self) -> None:
        self._log.unwatch(self, self._positions)
        self._positions = {}
        self._ready = {}
        self._paused.clear()

    async def _end_membership(self) -> None:
        if self._membership is not None:
            self._membership.cancel()
            await asyncio.wait([self._membership])

    def _on_membership_ended(self, task: asyncio.Task[None]) -> None:
        """A listener or assignor that raised: its error comes out of the next poll."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._wake()


def _resolve_waiter(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
