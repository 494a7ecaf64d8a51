"""What every log does when groups commit and share partitions: one async function a property."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from shared.errors import CommitRefused
from shared.kafka.port import Message, TopicPartition
from tests.support.log_bench import Bench, Case, Recorder, partitions_of

CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


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
