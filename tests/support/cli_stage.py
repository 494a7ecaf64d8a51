"""`tutti` in front of a cluster in memory, for tests of commands."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

from click.testing import CliRunner, Result

from infra.cli.cluster import Edge
from infra.cli.main import main
from shared.clock import LoopClock, ManualClock
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, Record, TopicPartition
from shared.topics import Topics

TOPICS = Topics()
NOW = 1_700_000_000.0


class Stage:
    """A cluster in memory, and `tutti` in front of it."""

    def __init__(self) -> None:
        self.log = MemoryLog(LoopClock())
        self.edge = Edge(open_log=lambda _settings, _clock: self.log, clock=ManualClock(NOW), random=Random(7))

    def tutti(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, obj=self.edge, catch_exceptions=False)

    def json(self, *arguments: str) -> Any:
        result = self.tutti(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def write(self, *messages: Message) -> None:
        async def send() -> None:
            producer = await self.log.producer(client_id="test")
            for message in messages:
                await producer.send(message)

        asyncio.run(send())

    def records(self, topic: str) -> list[Record]:
        async def read() -> list[Record]:
            consumer = await self.log.consumer(client_id="test")
            admin = await self.log.admin()
            partitions = [TopicPartition(topic, n) for n in range((await admin.list_topics())[topic].partitions)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[Record] = []
            while len(found) < sum(ends.values()):
                for records in (await consumer.poll(timeout_seconds=1)).values():
                    found += records
            return found

        return asyncio.run(read())
