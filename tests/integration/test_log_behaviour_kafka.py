"""Real Kafka passes the suite that the in-memory log passes (tests/contract/test_log_behaviour.py)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import pytest
from aiokafka import TopicPartition as TheirPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.port import TopicPartition
from tests.contract.log.cases import CASES
from tests.support.log_bench import Bench, Case
from tests.support.raw_batches import batch, bomb, write_raw

pytestmark = pytest.mark.kafka


async def _run(case: Case, servers: str) -> None:
    clock = SystemClock()
    log = AioLog(servers, clock)

    async def delete_before(partition: TopicPartition, offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        await admin.delete_records({TheirPartition(*partition): RecordsToDelete(before_offset=offset)})
        await admin.close()

    async def spoil(partition: TopicPartition, count: int) -> None:
        await write_raw(servers, partition, bomb(count, 100_000_000))

    async def foreign(partition: TopicPartition, headers: Sequence[tuple[str, bytes | None]]) -> None:
        await write_raw(servers, partition, batch([b"v"], headers=headers))

    bench = Bench(log, clock, f"log-{secrets.token_hex(4)}-", delete_before, spoil, foreign)
    try:
        await case(bench)
    finally:
        admin = await log.admin()
        await admin.delete_topics(bench.topics)
        await admin.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_kafka_log(case: Case, kafka: str) -> None:
    """Each case states its property."""
    asyncio.run(_run(case, kafka))
