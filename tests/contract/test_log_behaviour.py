"""The in-memory log passes the suite that real Kafka passes (tests/integration/test_log_behaviour_kafka.py), under virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.kafka.client.watched import WatchedLog
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Log, Message, MissedRecords, TopicPartition
from shared.sealing.sealed_log import SealedLog
from tests.contract.log.cases import CASES
from tests.support.log_bench import Bench, Case
from tests.support.sealing import keys_file, sealing


async def _run(case: Case, configure: str, folder: Path) -> None:
    clock = LoopClock()
    log = MemoryLog(clock)
    if configure == "slow":
        log.faults.send_seconds = log.faults.ack_seconds = log.faults.call_seconds = (0.0, 0.02)
        log.faults.delivery_seconds = (0.0, 0.1)

    async def delete_before(partition: TopicPartition, offset: int) -> None:
        log.existing(partition).delete_before(offset)

    async def spoil(partition: TopicPartition, count: int) -> None:
        log.spoil(partition, count)

    async def foreign(partition: TopicPartition, headers: Any) -> None:
        log.write(partition, [Message(partition.topic, b"v", headers=tuple(headers))])

    missed: list[MissedRecords] = []
    watched = WatchedLog(log, clock, missed=missed.extend)
    seen: Log = watched if configure == "watched" else log
    if configure == "sealed":
        seen = await sealing(log, clock, keys_file(folder))
    await case(Bench(seen, clock, "", delete_before, spoil, foreign, missed=missed))
    if isinstance(seen, SealedLog):
        await seen.close()


@pytest.mark.parametrize("configure", ["immediate", "slow", "watched", "sealed"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_memory_log(case: Case, configure: str, tmp_path: Path) -> None:
    """Each case states its property; `slow` adds random delays to every step, `watched` puts the watchdog in between, `sealed` seals."""
    virtual_loop.run(_run(case, configure, tmp_path))
