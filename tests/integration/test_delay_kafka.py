"""Promise: on a real Kafka a delayed record arrives when it is due, also when the delay service that held it is gone.

    delays.1s ──► delay ──(hop)──► delays.1s ──► delay ──(due)──► jobs.standard

How: twenty records that are due within four seconds; the service is cut off after two, and another one takes over.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from random import Random

import pytest

from services.delay.app import build
from services.delay.settings import DelaySettings
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, Producer, TopicPartition
from shared.processing.delays import build_delayed
from shared.processing.provision import ensure_topics
from shared.service import Environment
from shared.settings import ClusterSettings
from shared.tasks import ended
from shared.topics import Topics, TopicSettings

pytestmark = pytest.mark.kafka
CLOCK = SystemClock()
TARGET = 1
LATE_SECONDS = 1.0
"""On a machine that does much else at the same time."""


class Stage:
    """One test's topics on the real broker."""

    def __init__(self, log: AioLog, topics: Topics, producer: Producer) -> None:
        self.log = log
        self.topics = topics
        self.producer = producer
        self.target = topics.jobs(PriorityClass.STANDARD)

    def delay(self, stop: asyncio.Event) -> asyncio.Task[None]:
        environment = Environment(ClusterSettings(), self.log, CLOCK, Random(1), self.topics, f"d-{secrets.token_hex(3)}")
        return asyncio.ensure_future(build(environment, DelaySettings()).run(stop))

    async def put(self, due: dict[bytes, float], now: float) -> None:
        sent = await self.producer.send_many(
            [build_delayed(self.topics, Message(self.target, name, name, TARGET), at, now) for name, at in due.items()]
        )
        assert not [result for result in sent if isinstance(result, Exception)]

    async def arrivals(self, count: int) -> dict[bytes, list[float]]:
        """Name to times of arrival at the target, when `count` names have arrived."""
        reader = await self.log.consumer(client_id="reader")
        reader.assign([TopicPartition(self.target, TARGET)])
        arrived: defaultdict[bytes, list[float]] = defaultdict(list)
        try:
            async with asyncio.timeout(40.0):
                while len(arrived) < count:
                    for records in (await reader.poll(timeout_seconds=1.0)).values():
                        for record in records:
                            arrived[record.value or b""].append(record.timestamp / 1000)
        finally:
            await reader.close()
        return dict(arrived)


@pytest.fixture
async def stage(kafka: str) -> AsyncIterator[Stage]:
    log = AioLog(kafka, CLOCK)
    topics = Topics(TopicSettings(prefix=f"delay-{secrets.token_hex(4)}-", capabilities=("chat",)))
    await ensure_topics(log, topics)
    producer = await log.producer(client_id="asker")
    yield Stage(log, topics, producer)
    await producer.close()
    admin = await log.admin()
    await admin.delete_topics([topic.name for topic in topics.all()])
    await admin.close()
    await log.close()


async def test_records_arrive_when_due_across_a_hand_over(stage: Stage) -> None:
    """Nothing early, nothing lost; what the second service forwards from the beginning is in time."""
    stop = asyncio.Event()
    first = stage.delay(stop)
    await stage.put({b"warm": 0.0}, CLOCK.wall())
    await stage.arrivals(1)
    now = CLOCK.wall()
    due = {f"m{number}".encode(): now + number * 0.2 for number in range(20)}
    await stage.put(due, now)
    await CLOCK.sleep(2.0)
    await ended(first)
    second = stage.delay(stop)
    arrived = await stage.arrivals(len(due) + 1)
    stop.set()
    await second
    lateness = {name: min(arrived[name]) - at for name, at in due.items()}
    assert min(lateness.values()) >= -0.002
    assert min(lateness.values()) < LATE_SECONDS
