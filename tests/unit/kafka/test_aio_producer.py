"""The producer's batching, bounds and sessions, against a scripted client in place of aiokafka's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, OutOfOrderSequenceNumber

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.errors import RecordTooLarge, SendFailed
from shared.kafka import settings
from shared.kafka.client.aio import AioLog
from shared.kafka.client.aio_lane import InFlight
from shared.kafka.client.aio_producer import AioProducer
from shared.kafka.client.watchdog import UNHEARD_SECONDS
from shared.kafka.port import Appended, Message, TopicPartition

TP = TopicPartition("t", 0)


@dataclass
class Batch:
    """What aiokafka's BatchBuilder is to the producer."""

    values: list[bytes] = field(default_factory=list)
    size: int = 0

    def append(self, *, key: bytes | None, value: bytes, timestamp: None, headers: list[tuple[str, bytes]]) -> object:
        self.values.append(value)
        self.size += len(value)
        return self

    def close(self) -> None:
        """Closed batches are sent without linger."""


@dataclass
class Delivered:
    offset: int


class Session:
    """A client that acknowledges after `seconds`, or fails from batch `fails_at` on; `hangs` never answers."""

    def __init__(self, *, seconds: float = 0.01, fails_at: int | None = None, hangs: bool = False, offset: int | None = None) -> None:
        self.sent: list[tuple[int, Batch]] = []
        self.written: list[bytes] = []
        self.in_flight: dict[int, int] = {}
        self.most_in_flight = 0
        self.stopped = False
        self.client = self
        self._message_accumulator = self
        self._seconds, self._fails_at, self._hangs, self._offset = seconds, fails_at, hangs, offset

    async def partitions_for(self, topic: str) -> set[int]:
        return {0, 1, 2}

    async def force_metadata_update(self) -> bool:
        return True

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> Awaitable[Delivered]:
        assert not self.in_flight.get(partition), "one batch a partition is outstanding"
        self.sent.append((partition, batch))
        self.in_flight[partition] = sum(map(len, batch.values))
        self.most_in_flight = max(self.most_in_flight, sum(self.in_flight.values()))
        return asyncio.ensure_future(self._deliver(len(self.sent), batch, partition))

    async def _deliver(self, number: int, batch: Batch, partition: int) -> Delivered:
        if self._hangs:
            await asyncio.get_running_loop().create_future()
        await LoopClock().sleep(self._seconds)
        self.in_flight[partition] = 0
        if self._fails_at is not None and number >= self._fails_at:
            raise OutOfOrderSequenceNumber
        offset = len(self.written)
        self.written += batch.values
        return Delivered(offset if self._offset is None else self._offset)

    def fail_all(self, error: Exception) -> None:
        """aiokafka fails what waits."""

    async def stop(self) -> None:
        self.stopped = True

    async def close(self) -> None:
        """aiokafka's client."""


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    virtual_loop.run(scenario())


def producer_on(*sessions: Session, idempotent: bool = True, linger_ms: int = 0) -> AioProducer:
    """Sessions are opened in this order."""
    rest = list(sessions[1:])
    first: Any = sessions[0]

    async def open_session() -> Any:
        return rest.pop(0)

    return AioProducer(first, open_session, LoopClock(), idempotent=idempotent, linger_ms=linger_ms)


def test_concurrent_senders_share_batches() -> None:
    """500 callers of one partition cost two batches: the first, and all that came while it was on its way."""

    async def scenario() -> None:
        session = Session()
        producer = producer_on(session)
        first = asyncio.ensure_future(producer.send(Message("t", b"first", partition=0)))
        await LoopClock().sleep(0.001)
        placed = await asyncio.gather(*(producer.send(Message("t", b"%d" % n, partition=0)) for n in range(500)))
        await first
        assert [len(batch.values) for _, batch in session.sent] == [1, 500]
        assert [where.offset for where in placed] == list(range(1, 501))
        await producer.close()

    play(scenario)


def test_ten_thousand_messages_are_a_few_batches_in_order() -> None:
    """Batches are filled up to their bound, never above it; order is kept in each partition."""

    async def scenario() -> None:
        session = Session()
        producer = producer_on(session)
        messages = [Message("t", b"%05d" % n + b"x" * 295, partition=n % 3) for n in range(10_000)]
        results = await producer.send_many(messages)
        assert all(isinstance(result, Appended) for result in results)
        assert max(batch.size for _, batch in session.sent) <= settings.SEND_BATCH_BYTES
        assert len(session.sent) <= 18
        for partition in range(3):
            sent = [value for number, batch in session.sent if number == partition for value in batch.values]
            assert sent == [message.value for message in messages if message.partition == partition]
        await producer.close()

    play(scenario)


def test_an_append_shares_its_batch_with_nothing() -> None:
    """Sends that wait before and after it go in batches of their own, in order."""

    async def scenario() -> None:
        session = Session()
        producer = producer_on(session)
        calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(producer.send(Message("t", b"warm", partition=0)))]
        await LoopClock().sleep(0.001)
        calls += [asyncio.ensure_future(producer.send(Message("t", b"before", partition=0))) for _ in range(2)]
        calls.append(asyncio.ensure_future(producer.append(TP, [Message("t", b"a1"), Message("t", b"a2")])))
        await LoopClock().sleep(0)
        calls += [asyncio.ensure_future(producer.send(Message("t", b"after", partition=0))) for _ in range(2)]
        results = await asyncio.gather(*calls)
        assert [batch.values for _, batch in session.sent] == [[b"warm"], [b"before"] * 2, [b"a1", b"a2"], [b"after"] * 2]
        assert results[3] == 3
        await producer.close()

    play(scenario)


def test_a_fatal_error_ends_the_session_and_the_next_call_opens_another() -> None:
    """Whoever was outstanding gets SendFailed; nothing of it is sent again; the failed session is stopped."""

    async def scenario() -> None:
        broken, fresh = Session(fails_at=2), Session()
        producer = producer_on(broken, fresh)
        await producer.send(Message("t", b"ok", partition=0))
        with pytest.raises(SendFailed, match="OutOfOrderSequenceNumber"):
            await producer.append(TP, [Message("t", b"lost")])
        assert await producer.append(TP, [Message("t", b"new")]) == 0
        assert (broken.written, fresh.written) == ([b"ok"], [b"new"])
        await producer.close()
        assert broken.stopped
        assert fresh.stopped

    play(scenario)


def test_without_idempotence_a_failure_keeps_the_session() -> None:
    """acks=1: the failed batch is lost, the next may pass; there is no sequence to break."""

    async def scenario() -> None:
        session = Session(fails_at=1)
        producer = producer_on(session, idempotent=False)
        for _ in range(2):
            with pytest.raises(SendFailed):
                await producer.send(Message("t", b"v", partition=0))
        assert len(session.sent) == 2
        assert not session.stopped
        await producer.close()

    play(scenario)


def test_the_rest_of_a_failed_call_is_not_sent() -> None:
    """A call that needs several batches stops at the first failure, so that no later message overtakes a lost one."""

    async def scenario() -> None:
        session, next_session = Session(fails_at=2), Session()
        producer = producer_on(session, next_session)
        results = await producer.send_many([Message("t", b"x" * 100_000, partition=0)] * 10)
        assert all(isinstance(result, SendFailed) for result in results)
        assert len(session.sent) == 2
        assert next_session.sent == []
        await producer.close()

    play(scenario)


def test_an_unknown_offset_is_said_to_be_unknown() -> None:
    """A de-duplicated retry whose place the broker forgot gives -1 for every record of the batch."""

    async def scenario() -> None:
        producer = producer_on(Session(offset=-1))
        results = await producer.send_many([Message("t", b"v", partition=0)] * 3)
        assert [where.offset for where in results if isinstance(where, Appended)] == [-1, -1, -1]
        await producer.close()

    play(scenario)


def test_what_is_in_flight_is_bounded() -> None:
    """Callers beyond the window wait: never more bytes on the way than the window holds, and all arrive in the end."""

    async def scenario() -> None:
        session = Session(seconds=1.0)
        producer = producer_on(session)
        chunk = [Message("t", b"x" * 200_000, partition=0), Message("t", b"x" * 200_000, partition=1)]
        calls = [asyncio.ensure_future(producer.send_many(chunk)) for _ in range(100)]
        await LoopClock().sleep(0.5)
        accepted = sum(len(lane.queue) for lane in producer._lanes.values())
        assert accepted * 200_000 <= settings.WINDOW_BYTES
        results = [result for call in calls for result in await call]
        assert all(isinstance(result, Appended) for result in results)
        assert len(session.written) == 200
        await producer.close()

    play(scenario)


def test_a_window_serves_in_order_and_survives_cancelled_waiters() -> None:
    """First come first served; a request larger than the window passes alone; a cancelled waiter frees its place."""

    async def scenario() -> None:
        window = InFlight(100, 10)
        entered: list[str] = []

        async def enter(name: str, size: int) -> None:
            await window.enter(size, 1)
            entered.append(name)

        await enter("first", 80)
        large, cancelled, small = (asyncio.ensure_future(enter(name, size)) for name, size in (("large", 500), ("gone", 10), ("small", 10)))
        await LoopClock().sleep(1)
        assert entered == ["first"]
        cancelled.cancel()
        window.leave(80, 1)
        await large
        assert not small.done()
        window.leave(500, 1)
        await small
        assert entered == ["first", "large", "small"]
        blocked = asyncio.ensure_future(enter("blocked", 200))
        behind = asyncio.ensure_future(enter("behind", 50))
        await LoopClock().sleep(1)
        blocked.cancel()
        await behind
        assert entered[-1] == "behind"

    play(scenario)


def test_oversize_is_refused_before_anything_is_sent() -> None:
    """Our own bound, not the client's."""

    async def scenario() -> None:
        session = Session()
        producer = producer_on(session)
        with pytest.raises(RecordTooLarge):
            await producer.send(Message("t", b"x" * 300_000, partition=0))
        [result] = await producer.send_many([Message("t", b"", key=b"k" * 300_000, partition=0)])
        assert isinstance(result, RecordTooLarge)
        assert session.sent == []
        await producer.close()

    play(scenario)


def test_closing_is_bounded_and_tells_whoever_waits() -> None:
    """A broker that never answers does not hold the process: after the request timeout the callers get SendFailed."""

    async def scenario() -> None:
        producer = producer_on(Session(hangs=True))
        calls = [asyncio.ensure_future(producer.send(Message("t", b"v", partition=n % 2))) for n in range(4)]
        await LoopClock().sleep(1.0)
        await asyncio.wait_for(producer.close(), settings.REQUEST_SECONDS + 1.0)
        assert all(isinstance(result, SendFailed) for result in await asyncio.gather(*calls, return_exceptions=True))

    play(scenario)


def test_linger_gathers_what_comes_within_it() -> None:
    """With 5 ms of linger, sends 1 ms apart share a batch."""

    async def scenario() -> None:
        session = Session()
        producer = producer_on(session, linger_ms=5)
        calls = []
        for n in range(4):
            calls.append(asyncio.ensure_future(producer.send(Message("t", b"%d" % n, partition=0))))
            await LoopClock().sleep(0.001)
        await asyncio.gather(*calls)
        assert [len(batch.values) for _, batch in session.sent] == [4]
        await producer.close()

    play(scenario)


def test_a_cluster_that_cannot_be_reached_for_metadata_fails_the_send_only() -> None:
    """Nothing was sent, the session goes on."""

    class Unreachable(Session):
        async def partitions_for(self, topic: str) -> set[int]:
            if topic == "missing":
                raise KafkaConnectionError
            return {0}

    async def scenario() -> None:
        session = Unreachable()
        producer = producer_on(session)
        with pytest.raises(SendFailed):
            await producer.send(Message("missing", b"v", key=b"k"))
        with pytest.raises(SendFailed):
            await producer.send(Message("missing", b"v", partition=0))
        assert (await producer.send(Message("t", b"v", partition=0))).offset == 0
        assert not session.stopped
        await producer.close()

    play(scenario)


def test_a_producer_that_nothing_is_acknowledged_to_says_so() -> None:
    """Its log tells it, so each service's /readyz does; a closed producer is nobody's trouble."""

    async def scenario() -> None:
        well, hung = producer_on(Session()), producer_on(Session(hangs=True))
        log = AioLog("nowhere:1", LoopClock())
        log._producers.update((well, hung))
        await well.send(Message("t", b"v"))
        sending = asyncio.create_task(hung.send(Message("t", b"v")))
        told = []
        for seconds in (UNHEARD_SECONDS, 1.0):
            await LoopClock().sleep(seconds)
            told.append(log.unheard)
        assert (well.unheard, hung.unheard) == (False, True)
        sending.cancel()
        await hung.close()
        assert [*told, log.unheard] == [False, True, False]

    play(scenario)
