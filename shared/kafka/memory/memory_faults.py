"""What may go wrong on the in-memory log, each fault named. All of it is off until a simulation turns it on; draws come from one seed."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from shared.kafka.port import TopicPartition

Range = tuple[float, float]
"""Seconds, uniformly drawn between the two."""
NOW: Range = (0.0, 0.0)


class Fate(Enum):
    """What becomes of one batch that a producer sends."""

    ACKNOWLEDGED = "acknowledged"
    LOST = "lost"
    """Not appended; the sender gets SendFailed."""
    UNACKNOWLEDGED = "unacknowledged"
    """Appended; the sender gets SendFailed all the same."""
    OFFSET_UNKNOWN = "offset_unknown"
    """Appended and acknowledged, but with offset -1."""


@dataclass(slots=True)
class Faults:
    """Probabilities are per batch; delays are drawn per batch or call. Change the fields at any time."""

    random: Random = field(default_factory=lambda: Random(0))
    send_seconds: Range = NOW
    """Between the call and the record lying in the log: a batch may land after much has happened."""
    ack_seconds: Range = NOW
    """Between the record lying in the log and its sender knowing."""
    delivery_seconds: Range = NOW
    """Between the record lying in the log and readers seeing it; order within a partition is kept."""
    call_seconds: Range = NOW
    """Duration of a commit, an offset query, an administrative call."""
    delivery_of: dict[TopicPartition, Range] = field(default_factory=dict)
    """Replaces `delivery_seconds` for single partitions."""
    away: dict[str | TopicPartition, float] = field(default_factory=dict)
    """Topics (missing ones too) and partitions for which nobody answers: nothing is written, the sender hears so after so many seconds."""
    lost: float = 0.0
    unacknowledged: float = 0.0
    offset_unknown: float = 0.0
    duplicated: float = 0.0
    """Of batches to topics in `duplicable`: written twice, as by a sender that is not idempotent."""
    duplicable: frozenset[str] = frozenset()
    posthumous: float = 0.0
    """Of batches that are under way when their sender is killed: arrive all the same, when they were due."""
    lost_cancellations: float = 0.0
    """Of cancellations that reach a consumer's call: lost there, as in a client library. Who called goes on as if nothing had been said."""
    _scripted: dict[TopicPartition, deque[Fate]] = field(default_factory=lambda: defaultdict(deque))

    def script(self, partition: TopicPartition, *fates: Fate) -> None:
        """The next batches sent to `partition` meet exactly these fates."""
        self._scripted[partition].extend(fates)

    def heal(self) -> None:
        """Nothing goes wrong from now on; what is under way still arrives when it was due."""
        self.send_seconds = self.ack_seconds = self.delivery_seconds = self.call_seconds = NOW
        self.delivery_of.clear()
        self.away.clear()
        self.lost = self.unacknowledged = self.offset_unknown = self.duplicated = 0.0
        self.posthumous = self.lost_cancellations = 0.0
        self._scripted.clear()

    def draw(self, seconds: Range) -> float:
        """A delay in seconds; zero costs no random number."""
        return self.random.uniform(*seconds) if seconds[1] > 0.0 else 0.0

    def delivery(self, partition: TopicPartition) -> float:
        return self.draw(self.delivery_of.get(partition, self.delivery_seconds))

    def silence(self, partition: TopicPartition) -> float | None:
        """Seconds until a sender to a partition that is away hears so; None when it is there."""
        return self.away.get(partition.topic, self.away.get(partition)) if self.away else None

    def fate(self, partition: TopicPartition) -> Fate:
        """The next scripted fate, else a drawn one."""
        if self._scripted and (script := self._scripted.get(partition)):
            return script.popleft()
        total = self.lost + self.unacknowledged + self.offset_unknown
        if total <= 0.0:
            return Fate.ACKNOWLEDGED
        drawn = self.random.random()
        if drawn < self.lost:
            return Fate.LOST
        if drawn < self.lost + self.unacknowledged:
            return Fate.UNACKNOWLEDGED
        return Fate.OFFSET_UNKNOWN if drawn < total else Fate.ACKNOWLEDGED

    def duplicates(self, partition: TopicPartition) -> bool:
        """Whether a batch is written twice."""
        return self.duplicated > 0.0 and partition.topic in self.duplicable and self.random.random() < self.duplicated

    def outlives(self) -> bool:
        """Whether a batch arrives although its sender was killed meanwhile."""
        return self.posthumous > 0.0 and self.random.random() < self.posthumous

    def loses_cancellation(self) -> bool:
        """Whether one that has come is not noticed."""
        return self.lost_cancellations > 0.0 and self.random.random() < self.lost_cancellations
