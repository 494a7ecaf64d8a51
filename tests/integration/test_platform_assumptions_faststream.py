"""Platform assumption 11: what FastStream's acknowledgement policies do, so that an upgrade that changes them is seen.

Two records; the handler fails at the first. Which calls happen, and where does the group stand afterwards?
"""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage

from tests.support.raw_kafka import CLOCK, producer, topics, until

pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:AckPolicy.REJECT_ON_ERROR has the same effect:UserWarning")]


class Handled:
    """The values that the handler was called with, in order."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    async def at_least(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.calls) >= count

        await until(enough)


async def committed(servers: str, group: str, topic: str) -> int | None:
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    offsets = await admin.list_consumer_group_offsets(group)
    await admin.close()
    found = offsets.get(TopicPartition(topic, 0))
    return None if found is None else int(found.offset)


async def run(servers: str, topic: str, policy: AckPolicy, expected_calls: int) -> tuple[list[bytes], int | None]:
    """(calls, committed offset) after `expected_calls` calls and an orderly stop."""
    group = f"assume-{secrets.token_hex(5)}"
    handled = Handled()
    broker = KafkaBroker(servers)

    @broker.subscriber(topic, group_id=group, auto_offset_reset="earliest", ack_policy=policy)
    async def handle(body: bytes, message: KafkaMessage) -> None:
        handled.calls.append(message.body)
        if message.body == b"bad":
            raise ValueError
        if policy is AckPolicy.MANUAL:
            await message.ack()

    async with producer(servers) as writer:
        await writer.send_and_wait(topic, b"bad", partition=0)
        await writer.send_and_wait(topic, b"good", partition=0)
    await broker.start()
    await handled.at_least(expected_calls)
    await CLOCK.sleep(0.3)  # whatever would be called in addition is called now
    await broker.stop()
    return handled.calls, await committed(servers, group, topic)


@pytest.mark.parametrize("policy", [AckPolicy.ACK_FIRST, AckPolicy.ACK, AckPolicy.REJECT_ON_ERROR])
async def test_11_these_policies_lose_the_failed_record(kafka: str, policy: AckPolicy) -> None:
    """ACK_FIRST (the default), ACK and REJECT_ON_ERROR: the failed record counts as done; none is called twice."""
    async with topics(kafka) as make:
        assert await run(kafka, await make(), policy, 2) == ([b"bad", b"good"], 2)


async def test_11_nack_on_error_repeats_at_once_and_for_ever(kafka: str) -> None:
    """Seek back without delay or bound: the record behind the failed one is never reached, nothing is committed."""
    async with topics(kafka) as make:
        calls, offset = await run(kafka, await make(), AckPolicy.NACK_ON_ERROR, 5)
        assert set(calls) == {b"bad"}
        assert offset is None


async def test_11_manual_acknowledgement_is_by_position(kafka: str) -> None:
    """message.ack() commits where the consumer stands: acknowledging the second record acknowledges the failed first one."""
    async with topics(kafka) as make:
        assert await run(kafka, await make(), AckPolicy.MANUAL, 2) == ([b"bad", b"good"], 2)
