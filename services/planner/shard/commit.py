"""Commit: what one home has to commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from services.planner.state import watermark as watermarks
from services.planner.state.book import Book
from shared.kafka.port import TopicPartition


@dataclass(frozen=True, slots=True)
class Commit:
    """Offsets for one OffsetCommit, and what may be forgotten when it succeeds."""

    offsets: dict[TopicPartition, int]
    forgettable: list[str]
    book: Book

    @classmethod
    def of(cls, book: Book, events: TopicPartition, inputs: Mapping[str, int], last_own: int, topic_ids: Mapping[str, str | None]) -> Self:
        """Inputs (topic → next offset) and the watermark together."""
        offset, forgettable = watermarks.watermark(book, inputs, last_own, topic_ids)
        offsets = {TopicPartition(topic, events.partition): position for topic, position in inputs.items()}
        return cls({**offsets, events: offset}, forgettable, book)

    def succeeded(self) -> None:
        """What it was kept for is committed. A book that was given up meanwhile does not mind."""
        for job in self.forgettable:
            self.book.out.pop(job, None)
