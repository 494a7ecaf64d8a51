"""What every log does when topics change under its readers: made anew, or records gone. One async function a property."""

from __future__ import annotations

from shared.errors import TopicMadeAnew
from shared.kafka.port import Consumer, MissedRecords, TopicPartition
from tests.support.log_bench import PATIENCE_SECONDS, Bench, Case, Recorder

CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


def values(count: int) -> list[bytes]:
    return [b"%d" % n for n in range(count)]


async def until_made_anew(bench: Bench, consumer: Consumer, topic: str) -> None:
    """Poll until the reader is told; until then it is given nothing."""
    give_up_at = bench.clock.monotonic() + PATIENCE_SECONDS
    told = False
    while not told:
        assert bench.clock.monotonic() < give_up_at, "it was never told"
        try:
            assert not await consumer.poll(timeout_seconds=0.5)
        except TopicMadeAnew as error:
            told = error.topic == topic


@case
async def a_reader_by_hand_is_told_once_of_a_topic_made_anew_and_begins_at_its_beginning(bench: Bench) -> None:
    """Although the new topic has more records than were read of the old one, so that the old position would be valid in it."""
    topic, other = await bench.topic(), await bench.topic()
    await bench.write(topic, 3)
    consumer = await bench.reader([TopicPartition(topic, 0), TopicPartition(other, 0)])
    await bench.read(consumer, 3)
    before = consumer.identity(topic)
    await bench.make_anew(topic)
    await bench.write(topic, 8)
    await until_made_anew(bench, consumer, topic)
    assert consumer.identity(topic) not in (None, before)
    found = await bench.read(consumer, 8)
    assert [record.value for record in found] == values(8)
    await bench.write(other, 2)
    assert [record.topic for record in await bench.read(consumer, 2)] == [other] * 2
    await consumer.close()


@case
async def a_group_reads_a_topic_made_anew_from_its_beginning(bench: Bench) -> None:
    """It is a rebalance: `identity` tells another id, nothing counts as committed, and no record is given under the old position."""
    topic, other = await bench.topic(), await bench.topic()
    partition = TopicPartition(topic, 0)
    await bench.write(topic, 3)
    recorder = Recorder()
    consumer = await bench.log.consumer(client_id="c", group=bench.group())
    await consumer.subscribe([topic, other], recorder)
    await bench.read(consumer, 3)
    await consumer.commit({partition: 3})
    before, rebalances = consumer.identity(topic), len(recorder.events)
    assert before is not None
    await bench.make_anew(topic)
    await bench.write(topic, 8)
    found = await bench.read(consumer, 8)
    assert [record.value for record in found] == values(8)
    assert consumer.identity(topic) not in (None, before)
    assert len(recorder.events) > rebalances
    assert await consumer.committed([partition]) == {partition: None}
    await consumer.commit({partition: 8})
    assert await consumer.committed([partition]) == {partition: 8}
    await consumer.close()


@case
async def a_commit_of_the_old_topic_that_comes_late_counts_for_nothing(bench: Bench) -> None:
    """Its writer does not know yet; whoever begins later reads the new topic from its beginning."""
    topic, group = await bench.topic(), bench.group()
    partition = TopicPartition(topic, 0)
    await bench.write(topic, 3)
    late = await bench.log.consumer(client_id="late", group=group)
    late.assign([partition])
    assert await late.committed([partition]) == {partition: None}
    await bench.read(late, 3)
    await bench.make_anew(topic)
    await bench.write(topic, 8)
    await late.commit({partition: 3})
    await late.close()
    successor = await bench.log.consumer(client_id="successor", group=group)
    await successor.subscribe([topic])
    found = await bench.read(successor, 8)
    assert [record.value for record in found] == values(8)
    await successor.close()


@case
async def records_that_were_deleted_unread_are_told(bench: Bench) -> None:
    """Of whom and how many; reading goes on with the first record that is left."""
    topic = await bench.topic()
    partition = TopicPartition(topic, 0)
    await bench.write(topic, 10)
    away = await bench.reader([partition])
    await bench.delete_before(partition, 7)
    away.seek(partition, 4)
    told: list[MissedRecords] = []
    found = await bench.read(away, 3)
    assert [record.value for record in found] == values(10)[7:]
    give_up_at = bench.clock.monotonic() + PATIENCE_SECONDS
    while not told:
        assert bench.clock.monotonic() < give_up_at, "nobody heard of it"
        told += bench.missed or away.missed
        await away.poll(timeout_seconds=0.1)
    assert told == [MissedRecords(partition, 4, 7)], told
    await away.close()
