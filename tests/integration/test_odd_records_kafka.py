"""Promise: nothing that a record or a batch holds ends a planner, or keeps it from what lies around it.

foreign client ──► jobs.standard, outcomes: odd header names, headers without a value, a bomb   ──► dead letters, or jobs that run
                   a good job before and behind each, on each partition                          ──► all are taken
"""

from __future__ import annotations

import asyncio
import secrets
from random import Random

import pytest

from services.planner.app import Planner
from services.planner.settings import PlannerSettings
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.dead_letter import DeadLetter
from shared.kafka.client.aio import AioLog
from shared.kafka.client.watched import WatchedLog
from shared.kafka.port import Message, TopicPartition
from shared.processing.provision import ensure_topics
from shared.service import Environment
from shared.settings import ClusterSettings
from shared.topics import Topics, TopicSettings
from tests.support.raw_batches import NAME, batch, bomb, renamed, write_raw
from tests.support.raw_kafka import until

pytestmark = pytest.mark.kafka
JOB = b'{"prompt": "q"}'


async def _letters(log: AioLog, topics: Topics, count: int) -> list[DeadLetter]:
    consumer = await log.consumer(client_id="letters")
    consumer.assign([TopicPartition(topics.dead_letters, n) for n in range(topics.partitions("other"))])
    found: list[DeadLetter] = []

    async def enough() -> bool:
        for records in (await consumer.poll(timeout_seconds=0.2)).values():
            found.extend(DeadLetter.model_validate_json(record.value or b"") for record in records)
        return len(found) >= count

    await until(enough)
    await consumer.close()
    return found


async def _scenario(servers: str) -> None:
    clock, topics = SystemClock(), Topics(TopicSettings(prefix=f"odd-{secrets.token_hex(3)}.", home_partitions=2, other_partitions=1))
    log = AioLog(servers, clock)
    await ensure_topics(log, topics)
    watched = WatchedLog(log, clock)
    planner = Planner(Environment(ClusterSettings(topics=topics.settings), watched, clock, Random(2), topics, "odd"), PlannerSettings())
    stop = asyncio.Event()
    running = asyncio.create_task(planner.run(stop))
    producer = await log.producer(client_id="good")
    jobs = topics.jobs(PriorityClass.STANDARD)

    async def taken(count: int) -> bool:
        if running.done():
            running.result()
        return planner.readiness().ready and sum(owned.home.live for owned in planner.homes.owned.values()) == count

    await until(lambda: taken(0))
    good = 0
    for odd, runs in (
        (renamed(batch([JOB], headers=[(NAME, b"1")]), b"\xff\xfe\xff\xfe"), 0),
        (batch([JOB], headers=[("x-tenant", None), ("type", None), ("version", None)]), 1),
    ):
        for home in range(2):
            await write_raw(servers, TopicPartition(jobs, home), odd)
            await producer.send(Message(jobs, JOB, None, home))
            good += runs + 1
    for topic in (jobs, topics.outcomes):
        await write_raw(servers, TopicPartition(topic, 0), bomb(3, 300_000_000))
    await write_raw(servers, TopicPartition(topics.outcomes, 1), renamed(batch([b"{}"], headers=[(NAME, b"1")]), b"\xff\xff\xff\xff"))
    for home in range(2):
        await producer.send(Message(jobs, JOB, None, home))
        good += 1
    await until(lambda: taken(good))
    letters = await _letters(log, topics, 5)
    named = [letter for letter in letters if "a header's name is not UTF-8" in letter.reason]
    assert sorted((letter.topic.removeprefix(topics.settings.prefix), letter.partition, letter.value) for letter in named) == [
        ("jobs.standard", 0, JOB),
        ("jobs.standard", 1, JOB),
        ("outcomes", 1, b"{}"),
    ]
    assert {letter.headers[0][0][:4] for letter in named} == {"\\xff"}
    bombs = [letter for letter in letters if "the batch cannot be unpacked into" in letter.reason]
    assert sorted(letter.topic.removeprefix(topics.settings.prefix) for letter in bombs) == ["jobs.standard", "outcomes"]
    stop.set()
    await asyncio.wait_for(running, 20)
    await producer.close()
    admin = await log.admin()
    await admin.delete_topics([topic.name for topic in topics.all()])
    await admin.close()


def test_a_planner_lives_on(kafka: str) -> None:
    """Every good job is taken, what cannot be read is told."""
    asyncio.run(_scenario(kafka))
