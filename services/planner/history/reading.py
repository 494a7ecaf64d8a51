"""Reading: stretches and single records of one partition of `job-events`, with a reader of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.planner.shard.wiring import Wiring
from shared.kafka.port import Consumer, Record, TopicPartition
from shared.kafka.settings import PARTITION_FETCH_BYTES
from shared.processing.tail import stretches

POLL_SECONDS = 1.0

Visit = Callable[[Record], None]


@asynccontextmanager
async def reader(wiring: Wiring, partition: TopicPartition, fetch_bytes: int = PARTITION_FETCH_BYTES) -> AsyncIterator[Consumer]:
    """A consumer outside any group, of this partition."""
    consumer = await wiring.log.consumer(client_id=f"{wiring.instance}-replay", reset="earliest", max_partition_fetch_bytes=fetch_bytes)
    try:
        consumer.assign([partition])
        yield consumer
    finally:
        await consumer.close()


async def read_range(wiring: Wiring, partition: TopicPartition, start: int, end: int, visit: Visit) -> int:
    """Visit every record of [start, end) in order; what lies before the offset that it returns was deleted by then. Raises LogError."""
    async with reader(wiring, partition) as consumer:
        async for records in stretches(consumer, {partition: (start, end)}):
            for record in records:
                visit(record)
        return (await consumer.beginning_offsets([partition]))[partition]
