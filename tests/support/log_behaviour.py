"""What every log does: one async function a property, run on the in-memory log and on real Kafka alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import pytest

from shared.contracts.base import BATCH_BYTES, RECORD_BYTES
from shared.errors import CommitRefused, LogError, RecordTooLarge, SendFailed
from shared.kafka.port import Appended, Message, NewTopic, TopicPartition
from shared.topics import partition_of
from tests.support.log_bench import Bench, Recorder, partitions_of

Case = Callable[[Bench], Awaitable[None]]
CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


# Sending


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
async def explicit_partitions_are_honoured_and_keys_choose_by_crc32(bench: Bench) -> None:
    """`partition` wins; else crc32 of the key mod n; without either, records rotate over all partitions."""
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


# Appending


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


# Reading without a group


@case
async def a_poll_returns_at_its_timeout_or_when_data_arrives(bench: Bench) -> None:
    """Nothing there: empty after the timeout. A record sent meanwhile ends the wait."""
    topic = await bench.topic()
    producer = await bench.log.producer(client_id="p")
    consumer = await bench.reader([TopicPartition(topic, 0)])
    started = bench.clock.monotonic()
    assert not await consumer.poll(timeout_seconds=0.3)
    assert bench.clock.monotonic() - started >= 0.29
    waiting = asyncio.ensure_future(consumer.poll(timeout_seconds=20.0))
    await bench.clock.sleep(0)
    started = bench.clock.monotonic()
    await producer.send(Message(topic, b"v", partition=0))
    [[record]] = (await waiting).values()
    assert record.value == b"v"
    assert bench.clock.monotonic() - started < 10.0
    await consumer.close()
    await producer.close()


@case
async def polling_by_class_keeps_the_rest(bench: Bench) -> None:
    """`partitions` restricts a poll; what was not asked for comes later, complete and in order."""
    urgent, bulk = await bench.topic(), await bench.topic(2)
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(bulk, b"%d" % n, partition=n % 2) for n in range(100)])
    await producer.send_many([Message(urgent, b"%d" % n, partition=0) for n in range(10)])
    only = [TopicPartition(urgent, 0)]
    consumer = await bench.reader(only + partitions_of(bulk, 2))
    seen: list[bytes | None] = []
    while len(seen) < 10:
        polled = await consumer.poll(timeout_seconds=0.5, partitions=only)
        assert set(polled) <= set(only)
        seen += [record.value for records in polled.values() for record in records]
    assert seen == [b"%d" % n for n in range(10)]
    rest = await bench.read(consumer, 100)
    for number in range(2):
        assert [int(r.value or b"") for r in rest if r.partition == number] == list(range(number, 100, 2))
    assert not await consumer.poll(timeout_seconds=0.0, partitions=[])
    await consumer.close()
    await producer.close()


@case
async def max_records_bounds_a_poll(bench: Bench) -> None:
    """No poll returns more, and nothing is lost by it."""
    topic = await bench.topic(3)
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(topic, b"%d" % n, partition=n % 3) for n in range(90)])
    consumer = await bench.reader(partitions_of(topic, 3))
    seen = []
    while len(seen) < 90:
        polled = await consumer.poll(timeout_seconds=0.5, max_records=7)
        found = [record for records in polled.values() for record in records]
        assert len(found) <= 7
        seen += found
    assert sorted(int(record.value or b"") for record in seen) == list(range(90))
    for number in range(3):
        assert [r.offset for r in seen if r.partition == number] == list(range(30))
    await consumer.close()
    await producer.close()


@case
async def a_paused_partition_gives_nothing_and_loses_nothing(bench: Bench) -> None:
    """pause holds a partition back, also what was fetched already; resume brings everything; the others go on."""
    topic = await bench.topic(2)
    held, free = partitions_of(topic, 2)
    producer = await bench.log.producer(client_id="p")
    consumer = await bench.reader([held, free])
    await producer.send_many([Message(topic, b"%d" % n, partition=n % 2) for n in range(20)])
    await bench.read(consumer, 20)
    consumer.pause(held)
    await producer.send_many([Message(topic, b"%d" % n, partition=n % 2) for n in range(20, 40)])
    assert {record.partition for record in await bench.read(consumer, 10)} == {1}
    assert held not in await consumer.poll(timeout_seconds=0.2)
    consumer.resume(held)
    resumed = await bench.read(consumer, 10)
    assert [int(record.value or b"") for record in resumed] == list(range(20, 40, 2))
    await consumer.close()
    await producer.close()


@case
async def several_partitions_in_step(bench: Bench) -> None:
    """Seek and position work per partition: one can be replayed to its end while the others stay where they are."""
    inputs, events = await bench.topic(), await bench.topic()
    tp_in, tp_events = TopicPartition(inputs, 0), TopicPartition(events, 0)
    producer = await bench.log.producer(client_id="p")
    await producer.append(tp_events, [Message(events, b"%d" % n) for n in range(30)])
    await producer.send_many([Message(inputs, b"%d" % n, partition=0) for n in range(5)])
    consumer = await bench.reader([tp_in, tp_events])
    consumer.pause(tp_in)
    consumer.seek(tp_events, 10)
    replayed: list[int] = []
    while await consumer.position(tp_events) < (await consumer.end_offsets([tp_events]))[tp_events]:
        polled = await consumer.poll(timeout_seconds=0.5, partitions=[tp_events])
        replayed += [record.offset for records in polled.values() for record in records]
    assert replayed == list(range(10, 30))
    consumer.pause(tp_events)
    consumer.resume(tp_in)
    assert [record.topic for record in await bench.read(consumer, 5)] == [inputs] * 5
    assert await consumer.position(tp_in) == 5
    assert await consumer.position(tp_events) == 30
    await consumer.close()
    await producer.close()


@case
async def the_reset_policy_decides_where_a_reader_begins(bench: Bench) -> None:
    """earliest: from the first record; latest: only what comes; none: an error."""
    topic = await bench.topic()
    tp = TopicPartition(topic, 0)
    producer = await bench.log.producer(client_id="p")
    await producer.append(tp, [Message(topic, b"old")] * 3)
    latest = await bench.log.consumer(client_id="c", reset="latest")
    latest.assign([tp])
    assert await latest.position(tp) == 3
    earliest = await bench.log.consumer(client_id="c", reset="earliest")
    earliest.assign([tp])
    assert await earliest.position(tp) == 0
    strict = await bench.log.consumer(client_id="c", group=bench.group(), reset="none")
    strict.assign([tp])
    with pytest.raises(LogError):
        await bench.read(strict, 1)
    await producer.send(Message(topic, b"new", partition=0))
    assert [record.value for record in await bench.read(latest, 1)] == [b"new"]
    for consumer in (latest, earliest, strict):
        await consumer.close()
    await producer.close()


@case
async def retention_moves_the_beginning(bench: Bench) -> None:
    """Deleted records are gone also when nobody has read them; offsets stay; a reader behind the beginning goes on at it."""
    topic = await bench.topic()
    tp = TopicPartition(topic, 0)
    producer = await bench.log.producer(client_id="p")
    await producer.append(tp, [Message(topic, b"%d" % n) for n in range(20)])
    consumer = await bench.reader([tp])
    await bench.delete_before(tp, 15)
    assert await consumer.beginning_offsets([tp]) == {tp: 15}
    assert await consumer.end_offsets([tp]) == {tp: 20}
    consumer.seek(tp, 3)
    assert [record.offset for record in await bench.read(consumer, 5)] == [15, 16, 17, 18, 19]
    assert await producer.append(tp, [Message(topic, b"next")]) == 20
    await consumer.close()
    await producer.close()


@case
async def assign_may_be_called_again(bench: Bench) -> None:
    """The new partitions replace the old ones; a partition that is no longer assigned cannot be sought."""
    topic = await bench.topic(2)
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(topic, b"%d" % n, partition=n % 2) for n in range(10)])
    consumer = await bench.reader([TopicPartition(topic, 0)])
    assert {record.partition for record in await bench.read(consumer, 5)} == {0}
    consumer.assign([TopicPartition(topic, 1)])
    assert {record.partition for record in await bench.read(consumer, 5)} == {1}
    assert consumer.assignment() == {TopicPartition(topic, 1)}
    with pytest.raises(LogError):
        consumer.seek(TopicPartition(topic, 0), 0)
    consumer.pause(TopicPartition(topic, 0))
    consumer.resume(TopicPartition(topic, 0))
    await consumer.close()
    await producer.close()


@case
async def a_closed_consumer_refuses(bench: Bench) -> None:
    """close() is idempotent; afterwards a poll raises LogError."""
    topic = await bench.topic()
    consumer = await bench.reader([TopicPartition(topic, 0)])
    await consumer.close()
    await consumer.close()
    with pytest.raises(LogError):
        await consumer.poll(timeout_seconds=0.0)


# Committing


@case
async def a_commit_is_where_the_next_reader_resumes(bench: Bench) -> None:
    """The committed offset is the next one to be read; what was read behind it and not committed comes again (crash without commit)."""
    topic = await bench.topic()
    tp = TopicPartition(topic, 0)
    group = bench.group()
    producer = await bench.log.producer(client_id="p")
    await producer.append(tp, [Message(topic, b"%d" % n) for n in range(10)])
    first = await bench.log.consumer(client_id="first", group=group)
    first.assign([tp])
    await bench.read(first, 10)
    assert await first.committed([tp]) == {tp: None}
    await first.commit({tp: 4})
    await first.close()
    second = await bench.log.consumer(client_id="second", group=group)
    second.assign([tp])
    assert await second.committed([tp]) == {tp: 4}
    assert [record.offset for record in await bench.read(second, 6)] == [4, 5, 6, 7, 8, 9]
    await second.close()
    await producer.close()


@case
async def one_commit_carries_all_partitions_also_paused_ones(bench: Bench) -> None:
    """Inputs of several topics and the watermark of a paused partition go in one commit, and only what was named is committed."""
    jobs, outcomes, events = await bench.topic(2), await bench.topic(2), await bench.topic(2)
    owned = [TopicPartition(topic, 1) for topic in (jobs, outcomes, events)]
    other = TopicPartition(jobs, 0)
    group = bench.group()
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(tp.topic, b"v", partition=tp.partition) for tp in [*owned, other] for _ in range(5)])
    consumer = await bench.log.consumer(client_id="c", group=group)
    consumer.assign([*owned, other])
    consumer.pause(owned[2])
    await bench.read(consumer, 15)
    offsets = dict(zip(owned, (3, 5, 1), strict=True))
    await consumer.commit(offsets)
    assert await consumer.committed([*owned, other]) == {**offsets, other: None}
    admin = await bench.log.admin()
    assert await admin.group_offsets(group) == offsets
    await admin.close()
    await consumer.close()
    await producer.close()


@case
async def a_commit_of_a_foreign_partition_is_refused(bench: Bench) -> None:
    """CommitRefused, and nothing of that commit is kept, not even for partitions that are owned."""
    topic = await bench.topic(2)
    mine, foreign = partitions_of(topic, 2)
    consumer = await bench.log.consumer(client_id="c", group=bench.group())
    consumer.assign([mine])
    with pytest.raises(CommitRefused):
        await consumer.commit({mine: 0, foreign: 0})
    assert await consumer.committed([mine, foreign]) == {mine: None, foreign: None}
    await consumer.close()


# Groups


@case
async def members_share_all_partitions_without_overlap(bench: Bench) -> None:
    """A second member takes over half; together they read everything that comes, each record once; a clean leave gives all back."""
    topic = await bench.topic(4)
    everything = frozenset(partitions_of(topic, 4))
    group = bench.group()
    one, two = Recorder(), Recorder()
    first = await bench.log.consumer(client_id="first", group=group)
    second = await bench.log.consumer(client_id="second", group=group)
    await first.subscribe([topic], one)
    await bench.joined(first)
    assert first.assignment() == everything
    await second.subscribe([topic], two)
    await bench.polling_until(lambda: len(first.assignment()) == len(second.assignment()) == 2, first, second)
    assert first.assignment() | second.assignment() == everything
    assert one.events[:2] == [("assigned", everything), ("revoked", everything)]
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(topic, b"%d" % n, partition=n % 4) for n in range(40)])
    seen = await bench.read(first, 20) + await bench.read(second, 20)
    assert sorted(int(record.value or b"") for record in seen) == list(range(40))
    await second.close()
    await bench.polling_until(lambda: first.assignment() == everything, first)
    await first.close()
    await producer.close()


@case
async def commits_are_possible_while_partitions_are_revoked_and_refused_later(bench: Bench) -> None:
    """A rebalance in the middle of work: `on_revoked` commits, the next owner resumes there, and the old owner's late commit is refused."""
    topic = await bench.topic(2)
    everything = partitions_of(topic, 2)
    group = bench.group()
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(topic, b"%d" % n, partition=n % 2) for n in range(20)])
    first = await bench.log.consumer(client_id="first", group=group)

    async def commit_progress(partitions: Collection[TopicPartition]) -> None:
        await first.commit(dict.fromkeys(partitions, 7))

    recorder = Recorder(commit_progress)
    await first.subscribe([topic], recorder)
    await bench.read(first, 20)
    second = await bench.log.consumer(client_id="second", group=group)
    await second.subscribe([topic])
    seen_by_second: list[int] = []
    await bench.polling_until(lambda: len(first.assignment()) == 1 == len(second.assignment()), first)
    [lost] = set(everything) - first.assignment()
    seen_by_second += [record.offset for record in await bench.read(second, 3)]
    assert seen_by_second == [7, 8, 9]
    with pytest.raises(CommitRefused):
        await first.commit({lost: 10})
    assert await second.committed([lost]) == {lost: 7}
    await second.commit({lost: 10})
    await first.close()
    await second.close()
    await producer.close()


@case
async def what_a_listener_raises_comes_out_of_the_next_poll(bench: Bench) -> None:
    """A mistake in `on_assigned` is not swallowed."""

    class Mistaken(Recorder):
        async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
            raise ZeroDivisionError

    topic = await bench.topic()
    consumer = await bench.log.consumer(client_id="c", group=bench.group())
    await consumer.subscribe([topic], Mistaken())
    with pytest.raises(ZeroDivisionError):
        await bench.read(consumer, 1)
    await consumer.close()


@case
async def a_listener_may_seek_and_pause(bench: Bench) -> None:
    """What `on_assigned` sets is in force before the first record is returned."""
    topic = await bench.topic(2)
    sought, paused = partitions_of(topic, 2)
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(topic, b"%d" % n, partition=n % 2) for n in range(20)])
    consumer = await bench.log.consumer(client_id="c", group=bench.group())

    class Starter(Recorder):
        async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
            consumer.seek(sought, 8)
            consumer.pause(paused)

    await consumer.subscribe([topic], Starter())
    assert [(r.partition, r.offset) for r in await bench.read(consumer, 2)] == [(0, 8), (0, 9)]
    assert not await consumer.poll(timeout_seconds=0.2)
    await consumer.close()
    await producer.close()


# Administration


@case
async def topics_are_created_once_listed_and_deleted(bench: Bench) -> None:
    """create_topics returns what was new; an existing topic keeps its partitions; the cluster has an id."""
    name = await bench.topic(3)
    other = name + "-other"
    admin = await bench.log.admin()
    assert await admin.create_topics([NewTopic(name, 9, 1, {}), NewTopic(other, 2, 1, {"retention.ms": "60000"})]) == [other]
    while other not in (listed := await admin.list_topics()):
        await bench.clock.sleep(0.02)
    assert (listed[name].partitions, listed[other].partitions) == (3, 2)
    await admin.delete_topics([other, name + "-unknown"])
    while other in await admin.list_topics():
        await bench.clock.sleep(0.02)
    assert await admin.cluster_id()
    await admin.close()
