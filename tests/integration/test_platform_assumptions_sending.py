"""Platform assumptions 5, 6 and 8: offsets that a writer sees, where records go, and what happens to one that is too large."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber

from shared.contracts.base import BATCH_BYTES, RECORD_BYTES
from shared.errors import SendFailed
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message
from shared.kafka.port import TopicPartition as OurPartition
from shared.kafka.sizes import RECORD_OVERHEAD, message_bytes
from tests.support.raw_kafka import CLOCK, consumer, drain, producer, topics

pytestmark = pytest.mark.kafka


async def test_5_a_writer_alone_sees_contiguous_offsets_and_a_second_one_as_a_gap(kafka: str) -> None:
    """The planner's check: base + count is the next base, unless somebody else wrote; also with compression and mixed batch sizes."""
    log = AioLog(kafka, CLOCK)
    async with topics(kafka) as make:
        tp = OurPartition(await make(), 0)
        writer, zombie = await log.producer(client_id="writer"), await log.producer(client_id="zombie")
        expected = 0
        for count in (1, 5, 100, 3, 1):
            assert await writer.append(tp, [Message(tp.topic, b"x" * 200)] * count) == expected
            expected += count
        assert await zombie.append(tp, [Message(tp.topic, b"z")]) == expected
        assert await writer.append(tp, [Message(tp.topic, b"x")]) == expected + 1
        await writer.close()
        await zombie.close()


async def test_5_a_retry_after_a_lost_answer_makes_no_duplicate(kafka: str) -> None:
    """The connection is cut while appends are under way: each is retried, lies once, and its offset is the expected one."""
    log = AioLog(kafka, CLOCK)
    async with topics(kafka) as make:
        tp = OurPartition(await make(), 0)
        writer = await log.producer(client_id="writer")
        await writer.append(tp, [Message(tp.topic, b"0")])
        session = writer._session
        assert session is not None
        for n in range(1, 40):
            append = asyncio.ensure_future(writer.append(tp, [Message(tp.topic, b"%d" % n)]))
            if n % 4 == 0:
                await CLOCK.sleep(0.0005 * (n % 8))
                for connection in list(session.client._conns.values()):
                    connection.close()
            assert await append == n
        await writer.close()
        async with consumer(kafka) as reader:
            reader.assign([TopicPartition(*tp)])
            assert [record.value for record in await drain(reader, 40)] == [b"%d" % n for n in range(40)]


async def test_5_a_hole_in_the_sequence_breaks_the_session_for_good(kafka: str) -> None:
    """Why our producer opens a new session: after a batch that was counted and never written, every later one is refused."""
    log = AioLog(kafka, CLOCK)
    async with topics(kafka) as make:
        tp = OurPartition(await make(), 0)
        writer = await log.producer(client_id="writer")
        await writer.append(tp, [Message(tp.topic, b"first")])
        session = writer._session
        assert session is not None
        session._txn_manager.increment_sequence_number(TopicPartition(*tp), 1)
        with pytest.raises(SendFailed, match=OutOfOrderSequenceNumber.__name__):
            await writer.append(tp, [Message(tp.topic, b"refused")])
        assert await writer.append(tp, [Message(tp.topic, b"new session")]) == 1
        assert writer._session is not session
        await writer.close()


async def test_6_equal_keys_of_any_client_go_to_one_partition(kafka: str) -> None:
    """Other clients use other partitioners: equal keys of one client stay together, but its partition is not ours to compute."""
    async with topics(kafka) as make:
        topic = await make(8)
        async with producer(kafka) as writer:
            places = [[(await writer.send_and_wait(topic, b"v", key=b"k%d" % key)).partition for _ in range(3)] for key in range(20)]
        assert all(len(set(place)) == 1 for place in places)
        assert len({place[0] for place in places}) > 1


async def test_6_timestamps_are_the_producer_s_and_headers_keep_order(kafka: str) -> None:
    """CreateTime in milliseconds; headers come back as they were, twice the same name included."""
    async with topics(kafka) as make:
        topic = await make()
        async with producer(kafka) as writer, consumer(kafka, topic) as reader:
            headers = [("b", b"1"), ("a", b""), ("b", b"\x00")]
            await writer.send_and_wait(topic, b"v", timestamp_ms=1_234_567_890_123, headers=headers, partition=0)
            [record] = await drain(reader, 1)
            assert (record.timestamp, record.timestamp_type, list(record.headers)) == (1_234_567_890_123, 0, headers)


async def test_8_an_oversize_record_fails_in_the_client_with_a_type(kafka: str) -> None:
    """And what our bounds admit, the broker admits: the largest record, the largest batch, in the topics as we configure them."""
    async with topics(kafka) as make:
        topic = await make(max_message_bytes=str(BATCH_BYTES + 16_384))
        async with producer(kafka, max_request_size=1_000) as writer:
            with pytest.raises(MessageSizeTooLargeError):
                await writer.send_and_wait(topic, b"x" * 2_000)
        plain = await AioLog(kafka, CLOCK, compression=None).producer(client_id="p")
        largest = Message(topic, b"x" * (RECORD_BYTES - RECORD_OVERHEAD), partition=0)
        assert message_bytes(largest) == RECORD_BYTES
        await plain.send(largest)
        part = Message(topic, b"x" * (BATCH_BYTES // 8 - RECORD_OVERHEAD))
        assert await plain.append(OurPartition(topic, 0), [part] * 8) == 1
        await plain.close()
