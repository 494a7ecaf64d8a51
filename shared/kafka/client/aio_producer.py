"""The producer on aiokafka: batches per partition (aio_lane), a window that bounds what is in flight, and sessions.

A session is one aiokafka producer with one producer id. When an idempotent session fails for good (aiokafka speaks InitProducerId v0 and
cannot mend it), everything outstanding ends in SendFailed, and the next call opens a new session. Nothing is sent twice by that.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from aiokafka import AIOKafkaProducer

from shared.clock import Clock
from shared.errors import LogError, NoDestination, SendFailed
from shared.kafka.client.aio_closing import stop_producer
from shared.kafka.client.aio_errors import FOREIGN, send_error
from shared.kafka.client.aio_lane import InFlight, Parcel, PartitionLane
from shared.kafka.client.watchdog import Hearing
from shared.kafka.port import Appended, Message, TopicPartition
from shared.kafka.settings import REQUEST_SECONDS, WINDOW_BYTES, WINDOW_RECORDS
from shared.kafka.sizes import check_batch, check_record
from shared.tasks import ended
from shared.telemetry import logs
from shared.topics import partition_of

log = logs.get(__name__)

OpenSession = Callable[[], Awaitable[AIOKafkaProducer]]


class AioProducer:
    """Implements `port.Producer`."""

    def __init__(self, session: AIOKafkaProducer, open_session: OpenSession, clock: Clock, *, idempotent: bool, linger_ms: int) -> None:
        self._session: AIOKafkaProducer | None = session
        self._open_session = open_session
        self._opening = asyncio.Lock()
        self._idempotent = idempotent
        self._linger = partial(clock.sleep, linger_ms / 1000) if linger_ms else None
        self._lanes: dict[TopicPartition, PartitionLane] = {}
        self._counts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._window = InFlight(WINDOW_BYTES, WINDOW_RECORDS)
        self._appending: set[TopicPartition] = set()
        self._rotation = 0
        self._closed = False
        self._now, self._hearing = clock.monotonic, Hearing()

    @property
    def unheard(self) -> bool:
        """Kafka has acknowledged nothing for a while, of what it was sent."""
        return not self._closed and self._hearing.unheard(self._now())

    async def send(self, message: Message) -> Appended:
        size = check_record(message)
        partition = await self._place(message)
        await self._window.enter(size, 1)
        done = self._submit(partition, (message,), (size,), alone=False)
        [(_, base)] = await done
        return Appended(*partition, base)

    async def send_many(self, messages: Sequence[Message]) -> list[Appended | Exception]:
        results: list[Appended | Exception] = [_UNSENT] * len(messages)
        groups = await self._group(messages, results)
        total = sum(sum(sizes) for _, sizes in groups.values())
        await self._window.enter(total, sum(len(indices) for indices, _ in groups.values()))
        parcels = {tp: self._submit(tp, [messages[i] for i in indices], sizes, alone=False) for tp, (indices, sizes) in groups.items()}
        if parcels:
            await asyncio.wait(parcels.values())
        for tp, done in parcels.items():
            _fill(results, tp, groups[tp][0], done)
        return results

    async def append(self, partition: TopicPartition, messages: Sequence[Message]) -> int:
        assert messages, "an append has at least one message"
        assert partition not in self._appending, f"a second append to {partition} while one is outstanding"
        size = check_batch(messages)
        self._appending.add(partition)
        try:
            await self._window.enter(size, len(messages))
        except BaseException:
            self._appending.discard(partition)
            raise
        done = self._submit(partition, messages, (size,), alone=True)
        done.add_done_callback(lambda _: self._appending.discard(partition))
        [(_, base)] = await asyncio.shield(done)
        return base

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=REQUEST_SECONDS)
        await ended(*tasks)
        session, self._session = self._session, None
        if session is not None:
            await stop_producer(session)

    # Placing

    async def _group(
        self, messages: Sequence[Message], results: list[Appended | Exception]
    ) -> dict[TopicPartition, tuple[list[int], list[int]]]:
        """(indices, sizes) per partition; messages that cannot be sent get their error in `results`."""
        groups: defaultdict[TopicPartition, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for index, message in enumerate(messages):
            try:
                size = check_record(message)
                place = message.partition
                tp = await self._place(message) if place is None else TopicPartition(message.topic, place)
            except LogError as error:
                results[index] = error
            else:
                indices, sizes = groups[tp]
                indices.append(index)
                sizes.append(size)
        return groups

    async def _place(self, message: Message) -> TopicPartition:
        """Explicit partition, else by key, else in rotation. Waits only for the metadata of a topic it never wrote to."""
        if message.partition is not None:
            return TopicPartition(message.topic, message.partition)
        count = self._counts.get(message.topic) or await self._count(message.topic)
        if message.key is not None:
            return TopicPartition(message.topic, partition_of(message.key, count))
        self._rotation += 1
        return TopicPartition(message.topic, self._rotation % count)

    async def _count(self, topic: str) -> int:
        try:
            session = await self._live_session()
            self._counts[topic] = count = len(await session.partitions_for(topic))
        except FOREIGN as error:
            raise send_error(error) from error
        return count

    # Sending

    def _submit(
        self, tp: TopicPartition, messages: Sequence[Message], sizes: Sequence[int], *, alone: bool
    ) -> asyncio.Future[list[tuple[int, int]]]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[tuple[int, int]]] = loop.create_future()
        done.add_done_callback(partial(self._leave, sum(sizes), len(messages)))
        lane = self._lanes.get(tp)
        if lane is None:
            lane = self._lanes[tp] = PartitionLane(tp, self._transmit, self._linger)
        lane.queue.append(Parcel(messages, sizes, alone, done))
        if not lane.busy:
            lane.busy = True
            task = loop.create_task(lane.pump())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return done

    def _leave(self, size: int, records: int, done: asyncio.Future[list[tuple[int, int]]]) -> None:
        self._window.leave(size, records)
        if not done.cancelled():
            done.exception()  # seen: a cancelled caller does not come back for it

    async def _transmit(self, tp: TopicPartition, messages: Sequence[Message]) -> int:
        """One record batch. Its base offset, or -1 when the broker had the batch already and no longer knows where."""
        session = await self._live_session()
        await _require(session, tp)
        batch = session.create_batch()
        for message in messages:
            added = batch.append(key=message.key, value=message.value, timestamp=None, headers=list(message.headers))
            assert added is not None, "the sizes counted here are never below the client's"
        batch.close()
        self._hearing.begun(self._now())
        delivered = None
        try:
            delivered = await (await session.send_batch(batch, tp.topic, partition=tp.partition))
        except FOREIGN as error:
            self._on_failure(session, tp, error)
            raise send_error(error) from error
        finally:
            self._hearing.ended(self._now(), acknowledged=delivered is not None)
        return int(delivered.offset)

    def _on_failure(self, session: AIOKafkaProducer, tp: TopicPartition, error: BaseException) -> None:
        """An idempotent producer that failed one batch has a hole in its sequence numbers: every later batch would fail."""
        log.warning("send_failed", topic=tp.topic, partition=tp.partition, error=repr(error))
        if self._idempotent and session is self._session:
            self._session = None
            task = asyncio.get_running_loop().create_task(stop_producer(session))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _live_session(self) -> AIOKafkaProducer:
        if self._session is not None:
            return self._session
        async with self._opening:
            if self._closed:
                raise SendFailed("the producer is closed")
            if self._session is None:
                self._session = await self._open_session()
            return self._session


_LOOK_SECONDS = 0.5
_UNSENT = SendFailed("not sent")


def _fill(
    results: list[Appended | Exception], tp: TopicPartition, indices: Sequence[int], done: asyncio.Future[list[tuple[int, int]]]
) -> None:
    """Spread the runs of one partition over its messages' places in `results`."""
    error = done.exception()
    if error is not None:
        assert isinstance(error, Exception)
        for index in indices:
            results[index] = error
        return
    place = iter(indices)
    for count, base in done.result():
        for number in range(count):
            results[next(place)] = Appended(tp.topic, tp.partition, base + number if base >= 0 else -1)


async def start_producer(session: AIOKafkaProducer) -> None:
    """Raises what ended its sender: aiokafka 0.14 would wait for ever for what that was to get, of who may not write anywhere."""
    starting = asyncio.create_task(session.start())
    try:
        while not starting.done():
            await asyncio.wait({starting}, timeout=_LOOK_SECONDS)
            sender: asyncio.Task[None] | None = session._sender._sender_task  # noqa: SLF001
            if not starting.done() and sender is not None and sender.done():
                sender.result()
                raise SendFailed("the client's sender has ended")
        starting.result()
    finally:
        await ended(starting)


async def _require(session: AIOKafkaProducer, tp: TopicPartition) -> None:
    """Raises NoDestination, before anything is sent, when the topic has no such partition; SendFailed when the topic is not found at all,
    after the client's request timeout.
    """
    try:
        if tp.partition not in await session.partitions_for(tp.topic):
            await session.client.force_metadata_update()
            if tp.partition not in await session.partitions_for(tp.topic):
                raise NoDestination(f"{tp.topic}-{tp.partition} does not exist")
    except FOREIGN as error:
        raise send_error(error) from error
