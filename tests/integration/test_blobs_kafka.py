"""Promise: what was kept in Kafka is read whole, whoever wrote between its chunks, at the bounds of both Kafka and tutti."""

from __future__ import annotations

import asyncio
import secrets
from random import Random

import pytest

from shared.clock import SystemClock
from shared.contracts.blob import BLOB_BYTES
from shared.kafka.client.aio import AioLog
from shared.kafka.port import TopicPartition
from shared.processing.blobs import BlobGone, Blobs
from shared.processing.provision import ensure_topics
from shared.topics import Topics, TopicSettings

pytestmark = pytest.mark.kafka


async def _scenario(servers: str) -> None:
    clock, topics = SystemClock(), Topics(TopicSettings(prefix=f"blobs-{secrets.token_hex(3)}.", other_partitions=1))
    log = AioLog(servers, clock)
    await ensure_topics(log, topics)
    writers = [Blobs(log, clock, topics, service="test", instance=f"w{number}") for number in range(4)]
    try:
        bodies = [Random(number).randbytes(3_000_000 + number) for number in range(4)]
        refs = await asyncio.gather(*(one.store("t", body) for one, body in zip(writers, bodies, strict=True)))
        assert len({ref.partition for ref in refs}) == 1
        read = await asyncio.gather(*(writers[0].fetch("t", ref) for ref in refs))
        assert read == bodies
        largest = bytes(BLOB_BYTES)
        assert await writers[0].fetch("t", await writers[1].store("t", largest)) == largest
        with pytest.raises(BlobGone):
            await writers[0].fetch("another", refs[0])
        admin = await log.admin()
        await admin.delete_records({TopicPartition(topics.blobs, 0): refs[0].last})
        await admin.close()
        with pytest.raises(BlobGone):
            await writers[0].fetch("t", refs[0])
    finally:
        for one in writers:
            await one.close()
        await log.close()


def test_bodies_are_kept_and_read(kafka: str) -> None:
    """Four writers at once into one partition; the largest body; another tenant; what retention took."""
    asyncio.run(asyncio.wait_for(_scenario(kafka), 90))
