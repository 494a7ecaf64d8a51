"""What the design takes for granted about Kafka and its client, shown on a real broker; an upgrade that changes one of these is seen.

Numbers as in the project's notes on Kafka, section 11:
  here                                          1, 2, 9  groups: poll limit, lost partitions, take-over
  test_platform_assumptions_fetching.py         3, 4     buffers, subsets, pause; latency beside idle partitions
  test_platform_assumptions_sending.py          5, 6, 8  offsets of one writer and two, partitions and headers, oversize
  test_platform_assumptions_retention.py        7, 8     compaction, tombstones, deletion of unread records (a broker of its own)
  test_platform_assumptions_outage.py           5, 10    broker killed and restarted under load (a broker of its own)
  test_platform_assumptions_faststream.py       11       what its acknowledgement policies do
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from shared.errors import CommitRefused
from shared.kafka.client import aio
from shared.kafka.port import TopicPartition as OurPartition
from tests.support.raw_kafka import CLOCK, consumer, drain, producer, pumping, topics, until

pytestmark = pytest.mark.kafka

POLL_LIMIT_SECONDS = 1.5


def group() -> str:
    return f"assume-{secrets.token_hex(5)}"


async def test_1_polling_beside_long_work_keeps_the_partitions(kafka: str) -> None:
    """Work that takes three poll limits, while a pump polls: no rebalance, and its commit is accepted."""
    async with topics(kafka) as make:
        topic = await make()
        limit = {"max_poll_interval_ms": int(POLL_LIMIT_SECONDS * 1000), "heartbeat_interval_ms": 300}
        async with consumer(kafka, topic, group_id=group(), **limit) as reader, producer(kafka) as writer:
            await writer.send_and_wait(topic, b"v")
            await drain(reader, 1)
            generation = reader._coordinator.generation
            async with pumping(reader):
                await CLOCK.sleep(3 * POLL_LIMIT_SECONDS)
            await reader.commit({TopicPartition(topic, 0): 1})
            assert reader._coordinator.generation == generation


@pytest.mark.alone
async def test_1_not_polling_costs_the_membership(kafka: str) -> None:
    """Past the limit the client leaves by itself; when it polls again it joins again, and the record comes again."""
    async with topics(kafka) as make:
        topic = await make()
        limit = {"max_poll_interval_ms": int(POLL_LIMIT_SECONDS * 1000), "heartbeat_interval_ms": 300}
        async with consumer(kafka, topic, group_id=group(), **limit) as reader, producer(kafka) as writer:
            await writer.send_and_wait(topic, b"v")
            await drain(reader, 1)
            started = CLOCK.monotonic()
            await until(lambda: has_left(reader))
            assert POLL_LIMIT_SECONDS - 0.1 <= CLOCK.monotonic() - started <= POLL_LIMIT_SECONDS + 3.0
            assert [record.offset for record in await drain(reader, 1)] == [0]


async def has_left(reader: Any) -> bool:
    return bool(reader._coordinator.generation < 0)


async def test_1_the_commit_of_a_member_that_left_is_ours_to_refuse(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka then commits without membership, and the broker accepts it while the group is empty. Our consumer raises CommitRefused."""
    monkeypatch.setitem(aio.CONSUMER_OPTIONS, "max_poll_interval_ms", int(POLL_LIMIT_SECONDS * 1000))
    async with topics(kafka) as make:
        topic = await make()
        ours = await aio.AioLog(kafka, CLOCK).consumer(client_id="c", group=group())
        tp = OurPartition(topic, 0)
        await ours.subscribe([topic])
        while not ours.assignment():
            await ours.poll(timeout_seconds=0.1)
        theirs = ours._consumer
        await until(lambda: has_left(theirs))
        with pytest.raises(CommitRefused):
            await ours.commit({tp: 1})
        assert await ours.committed([tp]) == {tp: None}
        await theirs.commit({TopicPartition(topic, 0): 1})
        assert await ours.committed([tp]) == {tp: 1}
        await ours.close()


async def test_2_a_commit_after_losing_the_partition_raises_and_commits_nothing(kafka: str) -> None:
    """Explicit offsets of a foreign partition raise before anything is sent; the owner's offset stays."""
    async with topics(kafka) as make:
        topic, name = await make(2), group()
        async with consumer(kafka, topic, group_id=name, heartbeat_interval_ms=300) as first:
            await drain(first, 0)
            assert len(first.assignment()) == 2
            async with consumer(kafka, topic, group_id=name, heartbeat_interval_ms=300) as second, pumping(first), pumping(second):

                async def shared() -> bool:
                    return len(first.assignment()) == len(second.assignment()) == 1

                await until(shared)
                [lost] = second.assignment()
                await second.commit({lost: 7})
                with pytest.raises(IllegalStateError):
                    await first.commit({lost: 3})
                assert await second.committed(lost) == 7


async def test_2_paused_partitions_can_be_committed(kafka: str) -> None:
    """One commit carries inputs and the watermark of the paused events partition."""
    async with topics(kafka) as make:
        topic = await make(2)
        async with consumer(kafka, topic, group_id=group()) as reader:
            inputs, events = TopicPartition(topic, 0), TopicPartition(topic, 1)
            reader.pause(events)
            await reader.commit({inputs: 3, events: 5})
            assert (await reader.committed(inputs), await reader.committed(events)) == (3, 5)


async def test_2_the_client_s_own_commit_would_pass_over_unfinished_work(kafka: str) -> None:
    """commit() without offsets commits what was fetched, for every partition: why ours always names them."""
    async with topics(kafka) as make:
        topic = await make()
        async with consumer(kafka, topic, group_id=group()) as reader, producer(kafka) as writer:
            for _ in range(5):
                await writer.send_and_wait(topic, b"v")
            await drain(reader, 5)
            await reader.commit()
            assert await reader.committed(TopicPartition(topic, 0)) == 5


MEMBER = """
import asyncio, sys
from tests.support.raw_kafka import consumer

async def main(servers, topic, group):
    async with consumer(servers, topic, group_id=group, session_timeout_ms=6000, heartbeat_interval_ms=300) as reader:
        await reader.getmany(timeout_ms=200)
        print("joined", flush=True)
        while True:
            await reader.getmany(timeout_ms=200)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.alone
@pytest.mark.parametrize(("number", "soon", "late"), [(signal.SIGKILL, 3.0, 9.0), (None, 0.0, 3.0)], ids=["SIGKILL", "clean leave"])
async def test_9_take_over(kafka: str, number: signal.Signals | None, soon: float, late: float) -> None:
    """After SIGKILL a member's partitions are taken over when its session of 6 s ends, not before; after a clean leave at once."""
    async with topics(kafka) as make:
        topic, name = await make(2), group()
        options = {"group_id": name, "session_timeout_ms": 6000, "heartbeat_interval_ms": 300}
        async with consumer(kafka, topic, **options) as heir, pumping(heir):

            async def owns(count: int) -> bool:
                return len(heir.assignment()) == count

            if number is None:
                async with consumer(kafka, topic, **options) as member, pumping(member):
                    await until(lambda: owns(1))
                left_at = CLOCK.monotonic()
            else:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", MEMBER, kafka, topic, name, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
                )
                assert process.stdout is not None
                assert await process.stdout.readline() == b"joined\n"
                await until(lambda: owns(1))
                process.send_signal(number)
                left_at = CLOCK.monotonic()
                await process.wait()
            await until(lambda: owns(2))
            assert soon <= CLOCK.monotonic() - left_at <= late
