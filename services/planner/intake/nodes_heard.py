"""For how long each node has not been heard on `credits`, by its records' keys alone. Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from shared.clock import Clock
from shared.contracts.base import NodeId
from shared.kafka.port import Log, Record, TopicPartition
from shared.placement.facts import DEAF_SECONDS
from shared.processing.node_table import MOST_NODES
from shared.processing.tail import Tail, at_end
from shared.topics import Topics

_PAUSE_SECONDS = 0.5
"""Nobody waits for it: the records of half a second cost one fetch."""


class NodesHeard:
    """Of one process; shared by its homes."""

    def __init__(self, log: Log, clock: Clock, topics: Topics, client_id: str) -> None:
        self._clock, self._heard_at = clock, dict[bytes, float]()
        self._since, self._last_at = 0.0, -inf
        partitions = [TopicPartition(topics.credits, 0)]
        self._tail = Tail(log, clock, partitions, client_id=client_id, begin=at_end, handle=self.on_records, pause_seconds=_PAUSE_SECONDS)

    async def run(self) -> None:
        """Listen for ever; Kafka's absence is waited out."""
        await self._tail.run()

    def silent_seconds(self, node: NodeId, now: float) -> float:
        """0 also where nothing is heard."""
        if now - self._last_at > DEAF_SECONDS:
            return 0.0
        return now - self._heard_at.get(node.encode(), self._since)

    def on_records(self, _: TopicPartition, records: Sequence[Record]) -> None:
        """Of `credits`; for who reads them anyway."""
        now = self._clock.monotonic()
        if now - self._last_at > DEAF_SECONDS or len(self._heard_at) > MOST_NODES:
            self._since = now
            self._heard_at.clear()
        self._last_at = now
        self._heard_at.update((record.key, now) for record in records if record.key is not None)
