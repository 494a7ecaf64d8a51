"""OpenTransactions: what waits in `jobs.*` behind an open transaction of a foreign producer, for metrics and readiness. Pure.

Only what was committed is read, so an open transaction holds its partition back until it ends, or the broker ends it
(`transaction.max.timeout.ms`). A short one is nobody's concern.

TopicIds: the topics that a home's positions and history belong to, by their ids: one that was made anew has the same offsets again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.planner.state.watermark import NO_IDS
from shared.contracts.base import CLASSES
from shared.kafka.port import Consumer, HeldBack, TopicPartition
from shared.telemetry import metrics
from shared.topics import Topics


class TopicIds:
    """Of one home. `taken` is what the partition was taken with."""

    def __init__(self, consumer: Consumer, topics: Sequence[str]) -> None:
        self._consumer, self._topics = consumer, topics
        self.taken: Mapping[str, str | None] = NO_IDS
        self.again: str | None = None
        """Another reason to take the partition again."""

    def wrong(self) -> str | None:
        """Why the partition is to be taken again, although nobody else has taken it. A topic that is gone counts when it is back."""
        for topic in self._topics:
            present = self._consumer.identity(topic)
            if present is not None and present != self.taken.get(topic):
                return f"{topic} was made anew"
        return self.again


PATIENCE_SECONDS = 10.0


class OpenTransactions:
    """What was seen at the last look. Times: monotonic seconds."""

    def __init__(self, topics: Topics) -> None:
        self._topics = {topics.jobs(c): c.value for c in CLASSES}
        self._since: dict[tuple[TopicPartition, int], float] = {}
        self._held_back: Mapping[TopicPartition, HeldBack] = {}

    def look(self, found: Mapping[TopicPartition, HeldBack], now: float) -> None:
        """It is the same transaction as long as it begins at the same offset."""
        self._held_back = found
        self._since = {key: self._since.get(key, now) for key in ((tp, one.offset) for tp, one in found.items())}
        for topic, priority_class in self._topics.items():
            metrics.JOBS_HELD_BACK.labels(priority_class).set(sum(one.records for tp, one in found.items() if tp.topic == topic))

    def reasons(self, now: float) -> list[str]:
        """One for each partition that is held back for long."""
        return [
            f"{self._held_back[tp].records} records of {tp.topic}-{tp.partition} wait behind an open transaction, since {now - since:.0f} s"
            for (tp, _), since in sorted(self._since.items())
            if now - since >= PATIENCE_SECONDS
        ]
