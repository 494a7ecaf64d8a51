"""What every log does when somebody writes: one async function a property, run on the in-memory log and on real Kafka alike."""

from __future__ import annotations

import asyncio

import pytest

from shared.contracts.base import BATCH_BYTES, RECORD_BYTES
from shared.errors import RecordTooLarge, SendFailed
from shared.kafka.port import Appended, Message, TopicPartition
from shared.topics import partition_of
from tests.support.log_bench import Bench, Case, partitions_of

CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


@case
async def order_in_a_partition_is_the_order_of_sending(bench: Bench) -> None:
    """Sends that are started one after the other without waiting lie in that order, with rising offsets."""
    topic = await bench.topic()
    producer = await bench.log.producer(client_id="p")
    sends = [asyncio.ensure_future(producer.send(Message(topic, b"%d" % n, partition=0))) for n in range(200)]
    placed = await asyncio.gather(*sends)
    records = await bench.contents(TopicPartition(topic, 0))
    assert [record.value for record in records] == [b"%d" % n for n in range(200)]
    assert [where.offset for where in placed] == [record.offset for record in records] == list(range(200))
    await producer.close()


@case
async def explicit_partitions_are_honoured_and_keys_choose_by_murmur2(bench: Bench) -> None:
    """`partition` wins; else murmur2 of the key mod n; without either, records rotate over all partitions."""
    topic = await bench.topic(4)
    producer = await bench.log.producer(client_id="p")
    assert (await producer.send(Message(topic, b"v", key=b"k", partition=3))).partition == 3
    for key in (b"a", b"bb", b"job-17"):
        assert (await producer.send(Message(topic, b"v", key=key))).partition == partition_of(key, 4)
    rotated = await producer.send_many([Message(topic, b"v")] * 8)
    assert {where.partition for where in rotated if isinstance(where, Appended)} == {0, 1, 2, 3}
    await producer.close()


@case
async def a_record_comes_back_as_it_was_sent(bench: Bench) -> None:
    """Key, value, header order, repeated headers and tombstones survive; the timestamp is the time of sending in milliseconds."""
    topic = await bench.topic()
    producer = await bench.log.producer(client_id="p")
    headers = (("type", b"Job"), ("same", b"1"), ("same", b"\x00\xff"))
    before = int(bench.clock.wall() * 1000)
    await producer.send(Message(topic, b"value", key=b"key", partition=0, headers=headers))
    await producer.send(Message(topic, None, key=b"key", partition=0))
    full, tombstone = await bench.contents(TopicPartition(topic, 0))
    assert (full.topic, full.partition, full.offset, full.key, full.value) == (topic, 0, 0, b"key", b"value")
    assert tuple(full.headers) == headers
    assert (tombstone.key, tombstone.value, tuple(tombstone.headers)) == (b"key", None, ())
    assert before - 1_000 <= full.timestamp <= int(bench.clock.wall() * 1000) + 1_000
    await producer.close()


@case
async def send_many_reports_each_message(bench: Bench) -> None:
    """Every message gets its own place, or its own error; one that is too large does not stop the others."""
    topic = await bench.topic(3)
    producer = await bench.log.producer(client_id="p")
    messages = [Message(topic, b"%d" % n, partition=n % 3) for n in range(300)]
    messages[150] = Message(topic, b"x" * (RECORD_BYTES + 1), partition=0)
    results = await producer.send_many(messages)
    assert isinstance(results[150], RecordTooLarge)
    places = {}
    for n, where in enumerate(results):
        if n != 150:
            assert isinstance(where, Appended)
            places[where.partition, where.offset] = b"%d" % n
    read = [record for tp in partitions_of(topic, 3) for record in await bench.contents(tp)]
    assert {(record.partition, record.offset): record.value for record in read} == places
    assert await producer.send_many([]) == []
    await producer.close()


@case
async def many_concurrent_sends_all_arrive_once(bench: Bench) -> None:
    """64 callers with 25 sends each over 5 partitions: every value lies exactly once where its sender was told."""
    topic = await bench.topic(5)
    producer = await bench.log.producer(client_id="p")

    async def caller(number: int) -> list[tuple[Appended, bytes]]:
        values = [b"%d-%d" % (number, count) for count in range(25)]
        return [(await producer.send(Message(topic, value, partition=number % 5)), value) for value in values]

    told = [pair for pairs in await asyncio.gather(*(caller(n) for n in range(64))) for pair in pairs]
    read = {(r.partition, r.offset): r.value for tp in partitions_of(topic, 5) for r in await bench.contents(tp)}
    assert {(where.partition, where.offset): value for where, value in told} == read
    assert len(read) == 1_600
    await producer.close()


@case
async def records_up_to_the_bound_pass_and_larger_ones_are_not_sent(bench: Bench) -> None:
    """The bound is ours: a record of nearly RECORD_BYTES is written and read, a larger one raises RecordTooLarge and is not in the log."""
    topic = await bench.topic()
    producer = await bench.log.producer(client_id="p")
    large = b"x" * (RECORD_BYTES - 200)
    await producer.send(Message(topic, large, partition=0))
    with pytest.raises(RecordTooLarge):
        await producer.send(Message(topic, b"x" * RECORD_BYTES, partition=0))
    [record] = await bench.contents(TopicPartition(topic, 0))
    assert record.value == large
    await producer.close()


@case
async def a_cancelled_sender_harms_nobody(bench: Bench) -> None:
    """Cancelling callers leaves the producer and the other callers as they were."""
    topic = await bench.topic()
    producer = await bench.log.producer(client_id="p")
    sends = [asyncio.ensure_future(producer.send(Message(topic, b"%d" % n, partition=0))) for n in range(100)]
    for send in sends[::3]:
        send.cancel()
    results = await asyncio.gather(*sends, return_exceptions=True)
    survivors = {b"%d" % n for n, result in enumerate(results) if isinstance(result, Appended)}
    assert len(survivors) >= 66
    await producer.send(Message(topic, b"last", partition=0))
    values = [record.value for record in await bench.contents(TopicPartition(topic, 0))]
    assert survivors <= set(values)
    assert values[-1] == b"last"
    assert len(values) == len(set(values))
    await producer.close()


@case
async def sends_to_a_partition_that_does_not_exist_fail(bench: Bench) -> None:
    """SendFailed, and the producer goes on."""
    topic = await bench.topic(2)
    producer = await bench.log.producer(client_id="p")
    with pytest.raises(SendFailed):
        await producer.send(Message(topic, b"v", partition=7))
    assert (await producer.send(Message(topic, b"v", partition=1))).offset == 0
    await producer.close()


@case
async def one_acknowledgement_is_enough_for_chunks(bench: Bench) -> None:
    """A producer with acks=1 writes like the other and is told where."""
    topic = await bench.topic()
    producer = await bench.log.producer(client_id="p", acks=1, linger_ms=5)
    placed = await asyncio.gather(*(producer.send(Message(topic, b"%d" % n, partition=0)) for n in range(10)))
    assert [where.offset for where in placed] == list(range(10))
    await producer.close()


@case
async def a_closed_producer_refuses(bench: Bench) -> None:
    """close() is idempotent; afterwards a send raises SendFailed."""
    topic = await bench.topic()
    producer = await bench.log.producer(client_id="p")
    await producer.close()
    await producer.close()
    with pytest.raises(SendFailed):
        await producer.send(Message(topic, b"v", partition=0))


@case
async def an_append_is_one_contiguous_batch(bench: Bench) -> None:
    """Rounds of one writer follow each other without gaps: each is told the offset of its first record."""
    topic = await bench.topic()
    tp = TopicPartition(topic, 0)
    producer = await bench.log.producer(client_id="p")
    expected = 0
    for size in (1, 7, 50, 2):
        base = await producer.append(tp, [Message(topic, b"%d" % (expected + n)) for n in range(size)])
        assert base == expected
        expected += size
    assert [record.value for record in await bench.contents(tp)] == [b"%d" % n for n in range(expected)]
    await producer.close()


@case
async def an_append_that_does_not_fit_a_batch_is_not_sent(bench: Bench) -> None:
    """RecordTooLarge for too many bytes together, or one record too large; the log is unchanged; a batch just below the bound passes."""
    topic = await bench.topic()
    tp = TopicPartition(topic, 0)
    producer = await bench.log.producer(client_id="p")
    part = Message(topic, b"x" * (BATCH_BYTES // 8 - 200))
    with pytest.raises(RecordTooLarge):
        await producer.append(tp, [part] * 9)
    with pytest.raises(RecordTooLarge):
        await producer.append(tp, [Message(topic, b"ok"), Message(topic, b"x" * (RECORD_BYTES + 1))])
    assert await producer.append(tp, [part] * 8) == 0
    assert len(await bench.contents(tp)) == 8
    await producer.close()


@case
async def a_second_writer_is_seen_as_a_gap(bench: Bench) -> None:
    """Whoever appends learns from its offset that somebody else wrote in between, and can read what."""
    topic = await bench.topic()
    tp = TopicPartition(topic, 0)
    first = await bench.log.producer(client_id="first")
    second = await bench.log.producer(client_id="second")
    assert await first.append(tp, [Message(topic, b"a")] * 3) == 0
    assert await second.append(tp, [Message(topic, b"zombie")] * 2) == 3
    assert await first.append(tp, [Message(topic, b"a")]) == 5
    assert [record.value for record in await bench.contents(tp)][3:5] == [b"zombie", b"zombie"]
    await first.close()
    await second.close()


@case
async def only_one_append_a_partition_may_be_outstanding(bench: Bench) -> None:
    """A second one is a programming mistake; on another partition it is fine."""
    topic = await bench.topic(2)
    producer = await bench.log.producer(client_id="p")
    await producer.append(TopicPartition(topic, 0), [Message(topic, b"warm")])
    outstanding = asyncio.ensure_future(producer.append(TopicPartition(topic, 0), [Message(topic, b"a")]))
    other = asyncio.ensure_future(producer.append(TopicPartition(topic, 1), [Message(topic, b"b")]))
    await bench.clock.sleep(0)
    if not outstanding.done():
        with pytest.raises(AssertionError):
            await producer.append(TopicPartition(topic, 0), [Message(topic, b"c")])
    assert (await outstanding, await other) == (1, 0)
    await producer.close()
