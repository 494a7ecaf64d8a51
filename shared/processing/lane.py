"""Lane: the records of one destination that wait to be sent, in order. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from shared.errors import NoDestination, NotSent, RecordTooLarge
from shared.kafka.port import Appended, Message
from shared.kafka.settings import SEND_BATCH_BYTES

BATCH_RECORDS = 1_000
"""Of one send; in bytes it is one record batch, so that lanes that hang leave room in the producer's window."""

Sent = Appended | Exception
Fate = Callable[[Sent], None]
"""Told once: where it lies, or the error for which it was given up."""
Destination = tuple[str, int | None]
"""Topic and partition; None where the key chooses."""


def may_be_written(result: Sent) -> bool:
    """Whether the record lies in the log, or may do so for all that is known."""
    return not isinstance(result, NotSent | NoDestination | RecordTooLarge)


class OutboxEntry:
    """A record on its way. `again`: a failure is no reason to give it up. `expires_at`: monotonic seconds."""

    __slots__ = ("again", "expires_at", "fate", "message", "settled", "size", "under_way")

    def __init__(self, message: Message, fate: Fate | None, expires_at: float, *, again: bool) -> None:
        self.message, self.fate, self.expires_at, self.again = message, fate, expires_at, again
        self.size = len(message.value or b"")
        self.under_way = self.settled = False


class Lane:
    """`hurry`: it holds more than what waits for company. `busy`: it has a task. `bytes`: of the values that wait."""

    __slots__ = ("busy", "bytes", "callers", "destination", "hurry", "under_way", "waiting")

    def __init__(self, destination: Destination, *, callers: bool) -> None:
        self.destination, self.callers = destination, callers
        self.waiting: deque[OutboxEntry] = deque()
        self.under_way: list[OutboxEntry] = []
        self.bytes = 0
        self.busy = self.hurry = False

    def add(self, entry: OutboxEntry) -> None:
        self.waiting.append(entry)
        self.bytes += entry.size

    def take(self) -> list[OutboxEntry]:
        """The next batch."""
        batch: list[OutboxEntry] = []
        size = 0
        while self.waiting and len(batch) < BATCH_RECORDS and (not batch or size + self.waiting[0].size <= SEND_BATCH_BYTES):
            entry = self.waiting.popleft()
            entry.under_way = True
            size += entry.size
            batch.append(entry)
        self.bytes -= size
        self.hurry = bool(self.waiting)
        self.under_way = batch
        return batch

    def put_back(self, again: Sequence[OutboxEntry]) -> None:
        """What must be sent again goes first."""
        self.waiting.extendleft(reversed(again))
        self.bytes += sum(entry.size for entry in again)
        self.hurry = True

    def remove(self, now: float) -> list[OutboxEntry]:
        """Take out what has waited beyond its patience."""
        gone = [entry for entry in self.waiting if entry.expires_at <= now]
        if gone:
            self.waiting = deque(entry for entry in self.waiting if entry.expires_at > now)
            self.bytes -= sum(entry.size for entry in gone)
        return gone
