"""Platform assumptions 7 and 8: compaction, tombstones and deletion by time, on a broker of its own whose cleaners run without pauses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from infra.native.kafka import Kafka
from tests.support.native import started_kafka
from tests.support.raw_kafka import CLOCK, PATIENCE_SECONDS, consumer, producer, topics, until

pytestmark = pytest.mark.kafka

QUICK = """
log.retention.check.interval.ms=200
log.cleaner.backoff.ms=100
log.initial.task.delay.ms=100
file.delete.delay.ms=0
"""


@dataclass(slots=True)
class QuickKafka(Kafka):
    """Looks for segments to clean or delete five times a second instead of every five minutes."""

    def _configure(self, java: str, jars: Path) -> None:
        Kafka._configure(self, java, jars)
        self._properties.write_text(self._properties.read_text() + QUICK)


@pytest.fixture
def quick_kafka(tmp_path: Path) -> Iterator[str]:
    broker = started_kafka(tmp_path, kind=QuickKafka)
    yield broker.servers
    broker.kill()


async def contents(reader: Any, tp: TopicPartition) -> list[tuple[bytes | None, bytes | None]]:
    """(key, value) of everything up to the end offset; stops on position."""
    await reader.seek_to_beginning(tp)
    found: list[tuple[bytes | None, bytes | None]] = []
    end = (await reader.end_offsets([tp]))[tp]
    give_up_at = CLOCK.monotonic() + PATIENCE_SECONDS
    while await reader.position(tp) < end:
        assert CLOCK.monotonic() < give_up_at, "the position never reaches the end"
        for records in (await reader.getmany(timeout_ms=100)).values():
            found += [(record.key, record.value) for record in records]
    return found


async def test_7_compaction_keeps_the_newest_value_and_later_drops_tombstones(quick_kafka: str) -> None:
    """A registry topic holds one record a key after compaction; a deleted key is first a tombstone and then nothing."""
    config = {"cleanup_policy": "compact", "segment_ms": "100", "min_cleanable_dirty_ratio": "0.01", "delete_retention_ms": "100"}
    async with topics(quick_kafka) as make:
        topic = await make(**config)
        tp = TopicPartition(topic, 0)
        async with producer(quick_kafka) as writer, consumer(quick_kafka) as reader:
            reader.assign([tp])
            for n in range(30):
                await writer.send_and_wait(topic, b"%d" % n, key=b"kept", partition=0)
                await writer.send_and_wait(topic, b"%d" % n, key=b"deleted", partition=0)
            await writer.send_and_wait(topic, None, key=b"deleted", partition=0)

            async def rolled_and_compacted() -> bool:
                await CLOCK.sleep(0.15)
                await writer.send_and_wait(topic, b"roll", key=b"filler", partition=0)
                found = await contents(reader, tp)
                kept = [value for key, value in found if key == b"kept"]
                return kept == [b"29"] and not [value for key, value in found if key == b"deleted"]

            await until(rolled_and_compacted)


async def test_8_retention_deletes_records_that_nobody_has_read(quick_kafka: str) -> None:
    """Kafka does not ask whether a job was read: why retention lies far above the worst backlog, and why we alarm."""
    async with topics(quick_kafka) as make:
        topic = await make(cleanup_policy="delete", retention_ms="300", segment_ms="100")
        tp = TopicPartition(topic, 0)
        async with producer(quick_kafka) as writer, consumer(quick_kafka) as reader:
            reader.assign([tp])
            for n in range(10):
                await writer.send_and_wait(topic, b"%d" % n, partition=0)

            async def gone() -> bool:
                return bool((await reader.beginning_offsets([tp]))[tp] >= 10)

            await until(gone)
            after = await writer.send_and_wait(topic, b"next", partition=0)
            assert after.offset >= 10, "offsets are never given again"
