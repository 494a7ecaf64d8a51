"""Records of every odd kind, for any topic of the in-memory log: those of a chaos run, and what a disk may leave there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from infra.lab.chaos.odd import KINDS as WRITABLE
from infra.lab.chaos.odd import Odd
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition

FAMILIES = (
    "jobs", "outcomes", "steps", "work", "controls", "nodes", "credits", "registry",
    "critiques", "delays", "replies", "job-events", "dead-letters", "cache", "acts",
)  # fmt: skip
"""Topics that services read."""
Write = Callable[[MemoryLog, TopicPartition], None]


def _of(records: Sequence[Odd]) -> Write:
    def write(log: MemoryLog, tp: TopicPartition) -> None:
        for odd in records:
            log.write(tp, [Message(tp.topic, odd.value, odd.key, tp.partition, odd.headers)])

    return write


KINDS: dict[str, Write] = {
    **{name: _of(records) for name, records in WRITABLE.items()},
    "a batch that nobody can unpack": lambda log, tp: log.spoil(tp, 3),
}
"""Name → how it is written to a partition."""
