"""Real Kafka passes the suite that the in-memory log passes (tests/contract/test_log_behaviour.py)."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from aiokafka import TopicPartition as TheirPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from shared.clock import SystemClock
from shared.kafka.aio import AioLog
from shared.kafka.port import TopicPartition
from tests.support.log_behaviour import CASES
from tests.support.log_bench import Bench, Case

pytestmark = pytest.mark.kafka


async def _run(case: Case, servers: str) -> None:
    clock = SystemClock()
    log = AioLog(servers, clock)

    async def delete_before(partition: TopicPartition, offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        await admin.delete_records({TheirPartition(*partition): RecordsToDelete(before_offset=offset)})
        await admin.close()

    bench = Bench(log, clock, f"log-{secrets.token_hex(4)}-", delete_before)
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
