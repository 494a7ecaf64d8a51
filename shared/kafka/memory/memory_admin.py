"""Administration of the in-memory log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shared.kafka.memory.memory_cluster import MemoryCluster
from shared.kafka.memory.memory_group import MemoryGroup
from shared.kafka.memory.memory_process import MemoryProcess
from shared.kafka.port import NewTopic, TopicInfo, TopicPartition


class MemoryAdmin:
    """Implements `port.Admin`."""

    def __init__(self, log: MemoryCluster, process: MemoryProcess, group: Callable[[str], MemoryGroup]) -> None:
        self._log = log
        self._process = process
        self._group = group

    async def create_topics(self, topics: Sequence[NewTopic]) -> list[str]:
        await self._call()
        return self._log.create(topics)

    async def add_partitions(self, counts: Mapping[str, int]) -> None:
        await self._call()
        for topic, count in counts.items():
            self._log.add_partitions(topic, count)

    async def list_topics(self) -> dict[str, TopicInfo]:
        await self._call()
        return {topic.name: TopicInfo(topic.name, topic.partitions, self._log.topic_ids[topic.name]) for topic in self._log.topics.values()}

    async def topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        await self._call()
        return {name: dict(self._log.topics[name].config) for name in names if name in self._log.topics}

    async def delete_topics(self, names: Sequence[str]) -> None:
        await self._call()
        self._log.delete(names)

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        await self._call()
        for partition, offset in before.items():
            self._log.existing(partition).delete_before(offset)

    async def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        await self._call()
        return dict(self._group(group).offsets)

    async def cluster_id(self) -> str:
        await self._call()
        return self._log.id

    async def close(self) -> None:
        """Nothing is held."""

    async def _call(self) -> None:
        await self._process.gate()
        await self._log.clock.sleep(self._log.faults.draw(self._log.faults.call_seconds))
