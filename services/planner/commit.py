"""Commit: what one home has to commit."""

from __future__ import annotations

from dataclasses import dataclass

from services.planner.engine.book import Book
from shared.kafka.port import TopicPartition


@dataclass(frozen=True, slots=True)
class Commit:
    """Offsets for one OffsetCommit, and what may be forgotten when it succeeds."""

    offsets: dict[TopicPartition, int]
    forgettable: list[str]
    book: Book
