"""How far a worker's mailbox is read, told of and committed. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from shared.kafka.port import Record, TopicPartition
from shared.processing.owed import OwedPositions


class MailboxPositions:
    """Of one partition number in several topics. `moved` is set when a position may have: something was read, or owes less."""

    def __init__(self, paid: Callable[[], None]) -> None:
        """`paid` is called when something that was read owes less."""
        self.moved = asyncio.Event()
        self._paid = paid
        self.begin({})

    def begin(self, at: Mapping[TopicPartition, int]) -> None:
        """Read and committed up to here; what was read of another mailbox counts no more."""
        self.read, self._committed, self._tells_from = dict(at), dict(at), dict(at)
        self._owed = OwedPositions(self._on_paid)

    def hold(self, record: Record) -> Callable[[], None]:
        """The record owes one thing more; call what is returned once that is acknowledged."""
        return self._owed.hold(record.topic, record.offset)

    def untold(self, record: Record) -> None:
        """Nobody here tells this record's home what became of it: it could not be read."""
        self._tells_from[TopicPartition(record.topic, record.partition)] = record.offset + 1

    def passable(self) -> dict[TopicPartition, int]:
        """As far as what was read is acknowledged."""
        positions = self._owed.clamp({tp.topic: offset for tp, offset in self.read.items()})
        return {tp: positions[tp.topic] for tp in self.read}

    def told(self) -> dict[TopicPartition, tuple[int, int]]:
        """From and up to: of each record that lies in between the home was told what became of it."""
        lines = {tp: (self._tells_from[tp], upto) for tp, upto in self.passable().items()}
        return {tp: (since, upto) for tp, (since, upto) in lines.items() if since < upto}

    def is_news(self, offsets: Mapping[TopicPartition, int]) -> bool:
        """Whether a commit of these says anything new."""
        return any(self._committed.get(tp) != offset for tp, offset in offsets.items())

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._committed = dict(offsets)

    def _on_paid(self) -> None:
        self.moved.set()
        self._paid()
