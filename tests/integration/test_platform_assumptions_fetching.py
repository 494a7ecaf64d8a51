"""Platform assumptions 3 and 4: what stays buffered, what is thrown away, and how long a record may wait beside idle partitions."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition

from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message
from shared.kafka.port import TopicPartition as OurPartition
from tests.support.raw_kafka import CLOCK, consumer, drain, producer, topics, until

pytestmark = pytest.mark.kafka


def test_the_two_partition_types_are_one_key() -> None:
    """Our NamedTuple and aiokafka's are equal and hash alike, so that records keyed by theirs are found by ours."""
    assert OurPartition("t", 1) == TopicPartition("t", 1)  # type: ignore[comparison-overlap]
    assert {TopicPartition("t", 1): "found"}[OurPartition("t", 1)] == "found"  # type: ignore[index]


async def test_3_a_subset_leaves_the_other_buffers(kafka: str) -> None:
    """getmany(one) returns only that one; the other partition's records were fetched meanwhile and come without another fetch."""
    async with topics(kafka) as make:
        topic = await make(2)
        one, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
        async with producer(kafka) as writer:
            for n in range(20):
                await writer.send_and_wait(topic, b"%d" % n, partition=n % 2)
        async with consumer(kafka) as reader:
            reader.assign([one, other])

            async def both_buffered() -> bool:
                return {one, other} <= set(reader._fetcher._records)

            await until(both_buffered)
            assert set(await reader.getmany(one)) == {one}
            rest = await reader.getmany()
            assert set(rest) == {other}
            assert len(rest[other]) == 10


async def test_3_one_buffer_is_emptied_before_the_next(kafka: str) -> None:
    """max_records does not spread over partitions: fairness needs a call per partition. max_records=0 raises."""
    async with topics(kafka) as make:
        topic = await make(2)
        tps = [TopicPartition(topic, n) for n in range(2)]
        async with producer(kafka) as writer:
            for n in range(20):
                await writer.send_and_wait(topic, b"%d" % n, partition=n % 2)
        async with consumer(kafka) as reader:
            reader.assign(tps)

            async def both_buffered() -> bool:
                return set(tps) <= set(reader._fetcher._records)

            await until(both_buffered)
            first = await reader.getmany(max_records=6)
            assert [len(records) for records in first.values()] == [6]
            second = await reader.getmany(max_records=6)
            assert sorted(len(records) for records in second.values()) == [2, 4]
            with pytest.raises(ValueError, match="max_records"):
                await reader.getmany(max_records=0)


async def test_3_pause_throws_the_buffer_away(kafka: str) -> None:
    """What was fetched of a paused partition is gone at the next poll and fetched again after resume; nothing is lost."""
    async with topics(kafka) as make:
        topic = await make()
        tp = TopicPartition(topic, 0)
        async with producer(kafka) as writer, consumer(kafka) as reader:
            await writer.send_and_wait(topic, b"v", partition=0)
            reader.assign([tp])

            async def buffered() -> bool:
                return tp in reader._fetcher._records

            await until(buffered)
            reader.pause(tp)
            assert not await reader.getmany()
            assert tp not in reader._fetcher._records
            reader.resume(tp)
            assert [record.offset for record in await drain(reader, 1)] == [0]


@pytest.mark.alone
async def test_4_a_partition_outside_the_fetch_in_flight_waits_for_it(kafka: str) -> None:
    """Resumed while a fetch of an idle partition is in flight: its record comes when that fetch ends, at most fetch_max_wait later."""
    async with topics(kafka) as make:
        topic = await make(2)
        idle, resumed = TopicPartition(topic, 0), TopicPartition(topic, 1)
        async with producer(kafka) as writer, consumer(kafka, fetch_max_wait_ms=800) as reader:
            reader.assign([idle, resumed])
            reader.pause(resumed)
            await writer.send_and_wait(topic, b"v", partition=1)
            waits = []
            for _ in range(4):
                await reader.getmany(timeout_ms=300)
                reader.seek(resumed, 0)
                started = CLOCK.monotonic()
                reader.resume(resumed)
                await drain(reader, 1)
                waits.append(CLOCK.monotonic() - started)
                reader.pause(resumed)
            assert max(waits) > 0.1, "a broker or client that answers at once would make this rule needless"
            assert max(waits) <= 0.8 + 0.7


@pytest.mark.alone
async def test_4_with_all_buffers_drained_a_record_waits_for_nothing(kafka: str) -> None:
    """24 partitions, most of them idle, the default fetch_max_wait of 500 ms: a hop takes milliseconds, for every partition."""
    log = AioLog(kafka, SystemClock())
    async with topics(kafka) as make:
        topic = await make(24)
        tps = [OurPartition(topic, n) for n in range(24)]
        reader = await log.consumer(client_id="reader", reset="latest")
        writer = await log.producer(client_id="writer")
        reader.assign(tps)
        for tp in tps:
            await reader.position(tp)
        hops = []
        for n in range(150):
            started = CLOCK.monotonic()
            sent = asyncio.ensure_future(writer.send(Message(topic, b"x" * 1_000, partition=n * 7 % 24)))
            while not await reader.poll(timeout_seconds=1.0):
                pass
            hops.append(CLOCK.monotonic() - started)
            await sent
        await reader.close()
        await writer.close()
    hops.sort()
    assert hops[len(hops) // 2] < 0.05, "p50 is 1-3 ms on an idle machine"
    assert hops[int(len(hops) * 0.9)] < 0.3, "none of them waited for a fetch to time out"


async def test_4_reading_to_the_end_stops_on_position(kafka: str) -> None:
    """The end offset and the position agree when everything is read, also when the end is not a record any more."""
    async with topics(kafka) as make:
        topic = await make()
        tp = TopicPartition(topic, 0)
        async with producer(kafka, transactional_id=topic) as writer, consumer(kafka) as reader:
            async with writer.transaction():
                await writer.send_and_wait(topic, b"v", partition=0)
            reader.assign([tp])
            assert [record.offset for record in await drain(reader, 1)] == [0]

            async def at_the_end() -> bool:
                await reader.getmany(timeout_ms=50)
                return bool(await reader.position(tp) == (await reader.end_offsets([tp]))[tp])

            await until(at_the_end)
            assert await reader.position(tp) == 2, "the commit marker took an offset that no record will ever show"
