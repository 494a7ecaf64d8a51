"""DeadLetterCap: when so much of a partition cannot be processed that the fault is more likely ours than the records'. Pure.

A bad deploy, or a message of a version that nobody here knows, must not drain a topic into `dead-letters`: the partition is stopped,
what is unread stays in Kafka, and the service says that it is not ready and why. A restart tries again; `TUTTI_DEAD_LETTER_CAP__SHARE=1`
goes on whatever comes.
"""

from __future__ import annotations

from collections import deque

from shared.kafka.port import TopicPartition
from shared.settings import DeadLetterCapSettings


class DeadLetterCap:
    """Counts one partition's records. Bounded: it remembers at most `window` of them."""

    __slots__ = ("_dead", "_partition", "_read", "_settings", "reason")

    def __init__(self, partition: TopicPartition, settings: DeadLetterCapSettings) -> None:
        self._partition = partition
        self._settings = settings
        self._read = 0
        self._dead: deque[int] = deque()
        self.reason: str | None = None
        """Why nothing more may be taken of this partition; None: go on."""

    def read(self) -> None:
        """A record was taken; most are fine."""
        self._read += 1

    def died(self) -> str | None:
        """A record that was taken lately goes to the dead letters. Returns `reason`."""
        dead, limit = self._dead, self._settings
        dead.append(self._read)
        while dead[0] <= self._read - limit.window:
            dead.popleft()
        looked_at = min(self._read, limit.window)
        if self.reason is None and len(dead) >= limit.at_least and len(dead) > limit.share * looked_at:
            self.reason = (
                f"{len(dead)} of the last {looked_at} records of {self._partition.topic}/{self._partition.partition} were dead-lettered: "
                "stopped; a restart, or a larger TUTTI_DEAD_LETTER_CAP__SHARE, goes on"
            )
        return self.reason
