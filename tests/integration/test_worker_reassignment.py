"""Promise: a worker whose mailbox has to be taken again and again, while the group's broker is still being looked for, commits and works.

How: a real broker, and a log whose first offset queries fail as if it did not answer, so that the reader settles in anew at once.
Before, the second assign() on one consumer ended aiokafka's coordinator ("Unexpected error during coordination AssertionError").
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from services.worker import mailbox_reader
from shared.clock import SystemClock
from shared.contracts.outcome import StepSucceeded
from shared.errors import LogUnavailable
from shared.kafka.client.aio import AioLog
from shared.kafka.client.aio_consumer import AioConsumer
from shared.kafka.port import TopicPartition
from shared.services import group_of
from tests.integration.test_worker_on_kafka import FAST, NODE, Cluster, cluster, step, until
from tests.support.simulated_node import http_node

__all__ = ["cluster"]
pytestmark = pytest.mark.kafka

FAILURES = 4


async def test_a_mailbox_is_taken_again_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is answered, and its position is in the group."""
    answered = AioConsumer.beginning_offsets
    left = FAILURES

    async def beginning_offsets(self: AioConsumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        nonlocal left
        if left and any(tp.topic == cluster.topics.controls for tp in partitions):
            left -= 1
            await SystemClock().sleep(0)
            raise LogUnavailable
        return await answered(self, partitions)

    monkeypatch.setattr(AioConsumer, "beginning_offsets", beginning_offsets)
    monkeypatch.setattr(mailbox_reader, "RETRY_SECONDS", 0.0)
    async with http_node(FAST) as (url, _), cluster.running(url) as (worker, _):
        assert left == 0
        await cluster.route(worker, *(step(n) for n in range(5)))
        await until(lambda: len(cluster.of(StepSucceeded)) == 5)
        await until(lambda: worker.readiness().ready)
        assert (
            await _committed(
                cluster.log, TopicPartition(cluster.topics.work("chat"), worker.reader.number or 0), cluster.topics.settings.prefix
            )
            == 5
        )


async def _committed(log: AioLog, partition: TopicPartition, prefix: str) -> Any:
    """What the worker's group has committed; waits a little for the last commit."""
    consumer = await log.consumer(client_id="looks", group=group_of(f"worker-{NODE}", prefix))
    consumer.assign([partition])
    try:
        for _ in range(200):
            found = (await consumer.committed([partition]))[partition]
            if found == 5:
                break
            await SystemClock().sleep(0.05)
        return found
    finally:
        await consumer.close()
