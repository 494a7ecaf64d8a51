"""Platform assumptions 5 and 10: the broker is killed and started again under load.

What: consumers go on by themselves, acknowledged records are neither lost nor doubled, appends stay contiguous, committed
offsets never pass unfinished work.
How: a broker of its own; a writer that appends rounds, many senders, a group consumer that commits what it finished; kill, start, compare.
"""

from __future__ import annotations

import asyncio

import pytest

from infra.native.kafka import Kafka
from shared.errors import LogError
from shared.kafka.client.aio import AioLog
from shared.kafka.client.watched import WatchedLog
from shared.kafka.port import Appended, Consumer, Log, Message, NewTopic, TopicPartition
from tests.support.raw_kafka import CLOCK, until

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

EVENTS = TopicPartition("events", 0)
BACK_SECONDS = 60.0


class Load:
    """Everything that was acknowledged, and everything that was finished."""

    def __init__(self) -> None:
        self.acknowledged: set[bytes] = set()
        self.appended: list[int] = []
        self.finished: list[bytes] = []
        self.committed: dict[TopicPartition, int] = {}
        self.stop = asyncio.Event()
        self.all_sent = asyncio.Event()

    async def progress(self) -> None:
        """Return when 300 more records are finished and a round more is appended."""
        finished, appended = len(self.finished) + 300, len(self.appended) + 1

        async def enough() -> bool:
            return len(self.finished) >= finished and len(self.appended) >= appended

        await until(enough, BACK_SECONDS)

    async def append_rounds(self, log: Log) -> None:
        """One writer: every append is acknowledged at exactly the next offset."""
        writer = await log.producer(client_id="planner")
        while not self.stop.is_set():
            base = await writer.append(EVENTS, [Message(EVENTS.topic, b"event")] * 3)
            self.appended.append(base)
        await writer.close()

    async def send_work(self, log: Log) -> None:
        """Many senders over four partitions."""
        sender = await log.producer(client_id="sender")

        async def one(number: int) -> None:
            count = 0
            while not self.stop.is_set():
                value = b"%d-%d" % (number, count)
                placed = await sender.send(Message("work", value, partition=number % 4))
                assert isinstance(placed, Appended)
                self.acknowledged.add(value)
                count += 1

        await asyncio.gather(*(one(number) for number in range(16)))
        self.all_sent.set()
        await sender.close()

    async def do_work(self, log: Log) -> None:
        """A group consumer that finishes what it reads before it commits it."""
        consumer = await log.consumer(client_id="worker", group="workers")
        await consumer.subscribe(["work"])
        while not self.all_sent.is_set() or not self.acknowledged <= set(self.finished):
            try:
                await self._finish_and_commit(consumer)
            except LogError:
                continue
        await consumer.close()

    async def _finish_and_commit(self, consumer: Consumer) -> None:
        polled = await consumer.poll(timeout_seconds=0.2)
        for tp, records in polled.items():
            self.finished += [record.value or b"" for record in records]
            self.committed[tp] = records[-1].offset + 1
        if polled:
            await consumer.commit({tp: self.committed[tp] for tp in polled})


async def test_5_10_a_broker_killed_under_load_loses_and_doubles_nothing(own_kafka: Kafka) -> None:
    """Two kills. Acknowledged = finished; the log holds each value once; rounds are contiguous; commits stay behind finished work."""
    log = WatchedLog(AioLog(own_kafka.servers, CLOCK), CLOCK)
    admin = await log.admin()
    await admin.create_topics([NewTopic("work", 4, 1, {}), NewTopic("events", 1, 1, {})])
    load = Load()
    tasks = [asyncio.ensure_future(run(log)) for run in (load.append_rounds, load.send_work, load.do_work)]
    for _ in range(2):
        await load.progress()
        await asyncio.to_thread(own_kafka.kill)
        await CLOCK.sleep(2.0)
        await asyncio.to_thread(own_kafka.start)
        await load.progress()
    load.stop.set()
    await asyncio.wait_for(asyncio.gather(*tasks), BACK_SECONDS)
    assert load.appended == list(range(0, 3 * len(load.appended), 3))
    assert load.acknowledged <= set(load.finished)
    await check_log(log, load)
    offsets = await admin.group_offsets("workers")
    assert all(offset <= load.committed[tp] for tp, offset in offsets.items())
    await admin.close()


async def check_log(log: Log, load: Load) -> None:
    """Every acknowledged value lies in the log exactly once; values whose sender was never told may lie there, also once."""
    reader = await log.consumer(client_id="checker")
    tps = [TopicPartition("work", n) for n in range(4)]
    reader.assign(tps)
    total = sum((await reader.end_offsets(tps)).values())
    values: list[bytes] = []
    while len(values) < total:
        for records in (await reader.poll(timeout_seconds=1.0)).values():
            values += [record.value or b"" for record in records]
    await reader.close()
    assert len(set(values)) == len(values)
    assert load.acknowledged <= set(values)
