"""The promise: a broker that has just started, and has not read a group yet, is not taken for one where the group has committed nothing.

What: a group commits; its broker is killed -9 and started again, some times; everybody asks at once, from before it listens.
How: whoever gets an answer gets what was committed, from the administrative call and from the group's consumer alike.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.native.kafka import Kafka
from shared.clock import SystemClock
from shared.errors import LogError
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, NewTopic, TopicPartition

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
GROUP, AT = "remembered", TopicPartition("committed", 0)
RECORDS, GROUPS = 5, 40
CLOCK = SystemClock()


async def _first_answer(admin: Any, group: str) -> int | None:
    """What the first answer says that is one."""
    while True:
        try:
            found = await admin.group_offsets(group)
            return int(found[AT]) if AT in found else None
        except LogError:
            await CLOCK.sleep(0.005)


async def _commit(log: AioLog, group: str) -> Any:
    consumer = await log.consumer(client_id=group, group=group)
    await consumer.subscribe([AT.topic])
    for _ in range(200):
        if AT in consumer.assignment():
            break
        await consumer.poll(timeout_seconds=0.1)
    await consumer.commit({AT: RECORDS})
    return consumer


def test_what_was_committed_is_what_is_told(own_kafka: Kafka) -> None:
    """Many groups, so that reading them takes its time."""

    async def run() -> None:
        log = AioLog(own_kafka.servers, CLOCK)
        admin, producer = await log.admin(), await log.producer(client_id="test")
        await admin.create_topics([NewTopic(AT.topic, 1, 1, {})])
        await producer.send_many([Message(AT.topic, b"x", None, 0) for _ in range(RECORDS)])
        await producer.close()
        await admin.close()
        member = await _commit(log, GROUP)
        for number in range(GROUPS):
            await (await _commit(log, f"{GROUP}-{number}")).close()
        asked = {group: await log.admin() for group in (GROUP, f"{GROUP}-1", f"{GROUP}-2")}
        for _ in range(3):
            for group, admin in asked.items():  # from now on they know who coordinates it
                assert (await admin.group_offsets(group))[AT] == RECORDS
            own_kafka.kill()
            asking = [asyncio.create_task(_first_answer(admin, group)) for group, admin in asked.items()]
            await asyncio.to_thread(own_kafka.start)
            assert await asyncio.wait_for(asyncio.gather(*asking), 60) == [RECORDS] * 3
            while True:
                try:
                    assert await member.committed([AT]) == {AT: RECORDS}
                    break
                except LogError:
                    await CLOCK.sleep(0.05)
        for one in (member, *asked.values()):
            await one.close()
        await log.close()

    asyncio.run(run())
