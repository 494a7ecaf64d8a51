"""The promise: topics that change under a running cluster are told of, nothing is skipped in silence, and no process ends for it.

What: `jobs.batch` is deleted and made anew, with more records than before; records are deleted before a stopped planner reads them; a
producer opens a transaction and hangs; services start while topics are missing.
How: real Kafka, real processes. Every job that still lies in Kafka has its result; the planner's /readyz names what happened; what was
rolled back never runs, and while it is open the other partitions go on.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from infra.cli.topics import unread
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Admin, Message, NewTopic, TopicPartition
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(300)]

CLOCK = SystemClock()
SECONDS = 60.0


class Scene:
    """One cluster as a foreign producer, an administrator and a reader of results see it."""

    def __init__(self, cluster: LocalCluster, log: AioLog, admin: Admin) -> None:
        self.cluster, self.log, self.admin = cluster, log, admin
        self.batch = TopicPartition(f"{cluster.prefix}jobs.batch", 0)

    async def send(self, name: str, count: int, partition: TopicPartition) -> set[str]:
        """Jobs with ids of their own; tried until the topic takes them."""
        ids = [f"{name}-{number}" for number in range(count)]
        producer = await self.log.producer(client_id="foreign")
        for job in ids:
            message = Message(partition.topic, _job(job), job.encode(), partition.partition)
            while isinstance((await producer.send_many([message]))[0], Exception):
                await CLOCK.sleep(0.1)
        await producer.close()
        return set(ids)

    async def results(self) -> dict[str, set[bytes]]:
        """Job → what was published for it: the same again after a take-over is no other run."""
        topics = [TopicPartition(self.cluster.topics.results, number) for number in range(6)]
        reader = await self.log.consumer(client_id="reader")
        reader.assign(topics)
        ends = await reader.end_offsets(topics)
        found: dict[str, set[bytes]] = {}
        while any([await reader.position(tp) < end for tp, end in ends.items()]):
            for records in (await reader.poll(timeout_seconds=0.2)).values():
                for record in records:
                    found.setdefault((record.key or b"").decode(), set()).add(record.value or b"")
        await reader.close()
        return found

    async def done(self, jobs: set[str]) -> None:
        async with asyncio.timeout(SECONDS):
            while not jobs <= (await self.results()).keys():
                await CLOCK.sleep(0.2)

    async def said(self, what: str) -> None:
        await until(lambda: what in readyz(self.cluster), f"{what}: {readyz(self.cluster)}")


def _job(job: str) -> bytes:
    return json.dumps({"id": job, "prompt": "q"}).encode()


def readyz(cluster: LocalCluster) -> str:
    return httpx.get(f"{cluster.services['planner'].url}/readyz", timeout=10).text


async def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    deadline = CLOCK.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert CLOCK.monotonic() < deadline, what
        await CLOCK.sleep(0.2)


async def _made_anew(it: Scene) -> None:
    await it.done(await it.send("old", 6, it.batch))
    await it.admin.delete_topics([it.batch.topic])
    topics = it.cluster.topics
    [topic] = [topic for topic in topics.all() if topic.name == it.batch.topic]
    while not await it.admin.create_topics([NewTopic(topic.name, topic.partitions, 1, topics.config(topic))]):
        await CLOCK.sleep(0.05)
    await it.done(await it.send("new", 20, it.batch))
    await it.said(f"{it.batch.topic} was deleted and made anew")


async def _deleted_unread(it: Scene) -> None:
    planner = it.cluster.services["planner"].daemon
    await CLOCK.sleep(1.5)  # everything so far is committed
    planner.signal(signal.SIGSTOP)
    await it.send("lost", 5, it.batch)
    reader = await it.log.consumer(client_id="reader")
    end = (await reader.end_offsets([it.batch]))[it.batch]
    await reader.close()
    await it.admin.delete_records({it.batch: end})
    planner.signal(signal.SIGCONT)
    await it.done(await it.send("left", 2, it.batch))
    # The fetch that was on its way when the planner stopped may have brought the first of them.
    await it.said(f"to {end - 1} of {it.batch.topic}-0 were deleted before they were read")


async def _open_transaction(it: Scene, servers: str) -> None:
    held = TopicPartition(it.batch.topic, 3)
    foreign: Any = AIOKafkaProducer(bootstrap_servers=servers, transactional_id="hangs", acks="all")
    await foreign.start()
    await foreign.begin_transaction()
    await foreign.send_and_wait(held.topic, _job("rolled-back"), key=b"rolled-back", partition=3)
    behind = await it.send("behind", 2, held)
    before = len(await it.results())
    producer = await it.log.producer(client_id="foreign")
    await producer.send(Message(it.batch.topic, b'{"prompt": "beside"}', partition=0))
    await producer.close()
    async with asyncio.timeout(SECONDS):
        while len(await it.results()) == before:
            await CLOCK.sleep(0.2)
    await it.said(f"3 records of {held.topic}-3 wait behind an open transaction")
    assert not behind & (await it.results()).keys()
    await foreign.abort_transaction()
    await it.done(behind)
    await foreign.begin_transaction()
    await foreign.send_and_wait(held.topic, _job("committed"), key=b"committed", partition=3)
    await foreign.commit_transaction()
    await foreign.stop()
    await it.done({"committed"})
    await _nothing_seems_to_wait(it, held)
    assert "rolled-back" not in await it.results()


async def _nothing_seems_to_wait(it: Scene, held: TopicPartition) -> None:
    """The mark of the transaction is the last offset of its partition; it is passed."""
    reader = await it.log.consumer(client_id="reader", committed_only=True)
    async with asyncio.timeout(SECONDS):
        while True:
            committed = {held: (await it.admin.group_offsets(f"{it.cluster.prefix}tutti-planner")).get(held, 0)}
            ends = await reader.end_offsets([held])
            if unread(committed, ends, ends)[held.topic]["unread"] == 0:
                break
            await CLOCK.sleep(0.2)
    await reader.close()


async def _missing_at_the_start(it: Scene) -> None:
    """What does not need them is done; what does, when they are there."""
    topics = it.cluster.topics
    names = {it.batch.topic, topics.registry, topics.work("embed"), topics.controls}
    await it.admin.delete_topics(sorted(names))
    for service in ("planner", "worker-1", "ingress"):
        await asyncio.to_thread(it.cluster.services[service].stop)
        it.cluster.services[service].start()
    await it.done(await it.send("meanwhile", 3, TopicPartition(topics.jobs(PriorityClass.STANDARD), 0)))
    for name in names - {topics.work("embed")}:
        await it.said(f"the topic {name} does not exist")
    made = [NewTopic(topic.name, topic.partitions, 1, topics.config(topic)) for topic in topics.all() if topic.name in names]
    await it.admin.create_topics(made)
    await it.done(await it.send("afterwards", 3, it.batch))
    for service in ("planner", "worker-1", "ingress"):
        await asyncio.to_thread(it.cluster.services[service].await_ready)


async def _scenario(cluster: LocalCluster, servers: str) -> None:
    log = AioLog(servers, CLOCK)
    it = Scene(cluster, log, await log.admin())
    before = cluster.pids()
    await _made_anew(it)
    await _deleted_unread(it)
    await _open_transaction(it, servers)
    assert all(len(results) == 1 for results in (await it.results()).values()), "a job ran twice"
    assert cluster.pids() == before
    await _missing_at_the_start(it)
    await it.admin.close()


def test_topics_that_change_are_told_and_nothing_is_skipped(cluster: StartCluster, kafka: str) -> None:
    """One cluster lives through all."""
    asyncio.run(_scenario(cluster("changes"), kafka))
