"""TopicIds: the topics that a home's positions and history belong to, by their ids: one that was made anew has the same offsets again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.planner.state.watermark import NO_IDS
from shared.kafka.port import Consumer


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
