"""What every log does when somebody reads without a group, and how topics are administered: one async function a property."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import LogError
from shared.kafka.port import Message, NewTopic, Record, TopicPartition, Unreadable
from shared.kafka.settings import POLL_RECORDS
from tests.support.log_bench import Bench, Case, partitions_of

CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


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
    seen: list[Record] = []
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
async def a_long_backlog_comes_in_pieces_and_others_have_their_turns(bench: Bench) -> None:
    """A reader who folds each poll in one go holds the event loop for so many records, however long the backlog."""
    topic = await bench.topic(2)
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(topic, b"%d" % n, partition=n % 2) for n in range(5 * POLL_RECORDS)])
    consumer = await bench.reader(partitions_of(topic, 2))
    turns, seen = 0, 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await bench.clock.sleep(0)

    ticking = asyncio.create_task(others())
    while seen < 5 * POLL_RECORDS:
        before = turns
        piece = sum(map(len, (await consumer.poll(timeout_seconds=5.0)).values()))
        assert 0 < piece <= POLL_RECORDS
        assert turns > before or not seen
        seen += piece
    ticking.cancel()
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


@case
async def topics_are_created_once_listed_grown_and_deleted(bench: Bench) -> None:
    """create_topics returns what was new; an existing topic keeps its partitions until some are added; the cluster has an id."""
    name = await bench.topic(3)
    other = name + "-other"
    admin = await bench.log.admin()
    assert await admin.create_topics([NewTopic(name, 9, 1, {}), NewTopic(other, 2, 1, {"retention.ms": "60000"})]) == [other]
    while other not in (listed := await admin.list_topics()):
        await bench.clock.sleep(0.02)
    assert (listed[name].partitions, listed[other].partitions) == (3, 2)
    await admin.add_partitions({name: 5})
    await admin.add_partitions({})
    while (await admin.list_topics())[name].partitions != 5:
        await bench.clock.sleep(0.02)
    await admin.delete_topics([other, name + "-unknown"])
    while other in await admin.list_topics():
        await bench.clock.sleep(0.02)
    assert await admin.cluster_id()
    await admin.close()


@case
async def records_below_an_offset_are_deleted_for_good(bench: Bench) -> None:
    """The beginning moves, the end does not; other partitions keep theirs; a reader from the start begins behind what is gone."""
    name = await bench.topic(2)
    first, second = TopicPartition(name, 0), TopicPartition(name, 1)
    producer = await bench.log.producer(client_id="p")
    await producer.send_many([Message(name, b"%d" % n, None, n % 2) for n in range(10)])
    await producer.close()
    admin = await bench.log.admin()
    await admin.delete_records({first: 3})
    await admin.delete_records({})
    await admin.close()
    consumer = await bench.log.consumer(client_id="c", reset="earliest")
    consumer.assign([first, second])
    assert await consumer.beginning_offsets([first, second]) == {first: 3, second: 0}
    assert await consumer.end_offsets([first, second]) == {first: 5, second: 5}
    seen: dict[TopicPartition, list[bytes | None]] = {first: [], second: []}
    while sum(map(len, seen.values())) < 7:
        for partition, records in (await consumer.poll(timeout_seconds=1.0)).items():
            seen[partition] += [record.value for record in records]
    assert seen[first] == [b"6", b"8"]
    await consumer.close()


@case
async def what_cannot_be_unpacked_is_told_and_passed_over(bench: Bench) -> None:
    """One `Unreadable` at the batch's last offset, without content; records before and behind it, and of other partitions, arrive."""
    topic = await bench.topic(2)
    first, second = partitions_of(topic, 2)
    producer = await bench.log.producer(client_id="p")
    for number in range(2):
        await producer.send(Message(topic, b"before", partition=number))
    await bench.spoil(first, 3)
    for number in range(2):
        await producer.send(Message(topic, b"behind", partition=number))
    consumer = await bench.reader([first, second])
    seen = await bench.read(consumer, 5)
    assert [(r.offset, r.value) for r in seen if r.partition == 0] == [(0, b"before"), (3, None), (4, b"behind")]
    assert [(r.offset, r.value) for r in seen if r.partition == 1] == [(0, b"before"), (1, b"behind")]
    [spoilt] = [record for record in seen if isinstance(record, Unreadable)]
    assert (spoilt.key, spoilt.headers) == (None, ())
    assert spoilt.reason.startswith("offsets 1 to 3: ")
    assert await consumer.position(first) == 5
    consumer.seek(first, 2)
    assert [record.offset for record in await bench.read(consumer, 2)] == [3, 4]
    await consumer.close()
    await producer.close()


@case
async def a_header_without_a_value_is_left_out(bench: Bench) -> None:
    """Kafka allows it; for every reader here it is not there."""
    topic = await bench.topic()
    tp = TopicPartition(topic, 0)
    await bench.foreign(tp, [("a", None), ("b", b"1"), ("c", None), ("d", b"")])
    await bench.foreign(tp, [("a", None)])
    consumer = await bench.reader([tp])
    assert [tuple(record.headers) for record in await bench.read(consumer, 2)] == [(("b", b"1"), ("d", b"")), ()]
    await consumer.close()


@case
async def max_partition_fetch_bytes_bounds_a_poll(bench: Bench) -> None:
    """Soft by one batch: so much of a partition comes at once, the rest later."""
    topic = await bench.topic()
    producer = await bench.log.producer(client_id="p")
    for _ in range(10):
        await producer.send(Message(topic, bytes(60_000), partition=0))
    consumer = await bench.log.consumer(client_id="c", max_partition_fetch_bytes=130_000)
    consumer.assign([TopicPartition(topic, 0)])
    seen = 0
    while seen < 10:
        count = sum(map(len, (await consumer.poll(timeout_seconds=0.5)).values()))
        assert count <= 3
        seen += count
    assert seen == 10
    await consumer.close()
    await producer.close()
