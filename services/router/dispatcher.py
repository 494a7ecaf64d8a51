"""Dispatcher: sends what was decided. First the work records of a round, then, beside the next round, all else that closes a step; only
what closed a step lets its record be committed past. Nothing is dropped, and no mailbox waits for another's.

A step that was given is closed when its node says that it has told the step's home, else by StepRouted, which starts the claim timeout.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from services.router import messages, unplaced
from services.router.messages import Closing, Placed
from services.router.settings import RouterSettings
from shared.clock import Clock, within
from shared.contracts.base import CLASSES
from shared.errors import RecordTooLarge
from shared.kafka.port import Appended, Message
from shared.placement.ledger import CreditLedger, NodeCredit
from shared.processing.lane import Sent
from shared.processing.outbox import Outbox
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

_ROUTED = {c: metrics.STEPS_ROUTED.labels(c.value) for c in CLASSES}
_SECONDS = {c: metrics.ROUTE_SECONDS.labels(c.value) for c in CLASSES}
ROUND_SECONDS = 0.05
"""A round waits so long for its sends, so that the next is as large as can be; what takes longer tells by itself."""
PATIENCE_SECONDS = 5.0
"""A mailbox that takes nothing for so long loses its steps to other nodes. One that was written nevertheless may be run twice."""


class _Round:
    """How many sends of a round are under way."""

    def __init__(self) -> None:
        self.left = 0
        self.over = asyncio.Event()


class _Given(NamedTuple):
    """A step that lies in a mailbox. `tell_at`: monotonic seconds."""

    placed: Placed
    mailbox: int
    offset: int
    tell_at: float


class Dispatcher:
    """`closed` is called after records were finished, or steps have come back. `leaving`: whether partitions are about to be given up."""

    def __init__(
        self,
        outbox: Outbox,
        topics: Topics,
        ledger: CreditLedger,
        *,
        settings: RouterSettings,
        clock: Clock,
        closed: Callable[[], None],
        leaving: Callable[[], bool],
    ) -> None:
        self._outbox = outbox
        self._topics = topics
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._closed = closed
        self._leaving = leaving
        self._returned: list[Placed] = []
        self._given: dict[tuple[NodeCredit, str], deque[_Given]] = {}
        """By node and kind of model, in the order in which Kafka has acknowledged them: not told of yet."""
        self.expire = outbox.expire
        """Take back what waits too long for its mailbox; to be called now and then."""

    async def give(self, round_: Sequence[Placed]) -> None:
        """Send the steps to their nodes' mailboxes. Those that Kafka does not take come back: `take_back`."""
        sending = _Round()
        for placed in round_:
            work = self._write(placed)
            if work is not None:
                sending.left += 1
                self._outbox.put(work, partial(self._on_given, placed, sending), again=False, patience_seconds=PATIENCE_SECONDS)
        if sending.left:
            await within(ROUND_SECONDS, sending.over.wait())

    def _write(self, placed: Placed) -> Message | None:
        """None where what the step holds cannot be written: it has failed."""
        try:
            return messages.work(placed, self._topics, self._clock.monotonic())
        except Exception as error:
            log.failure("step_not_written", error, job=placed.entry.step.job)
            self._ledger.failed(placed.dispatch)
            self.close(messages.failed(placed.entry, unplaced.internal(), self._topics))
            return None

    def take_back(self) -> list[Placed]:
        """Steps that no mailbox has, in the order in which they were given away. They are in nobody's count."""
        returned, self._returned = self._returned, []
        if returned:
            log.warning("steps_not_sent", count=len(returned))
        return returned

    def _on_given(self, placed: Placed, sending: _Round, result: Sent) -> None:
        sending.left -= 1
        if not sending.left:
            sending.over.set()
        _SECONDS[placed.entry.priority_class].observe(self._clock.monotonic() - placed.entry.arrived_at)
        if isinstance(result, Appended):
            _ROUTED[placed.entry.priority_class].inc()
            self._ledger.acknowledged(placed.dispatch, result.offset)
            given = _Given(placed, result.partition, result.offset, self._clock.monotonic() + self._settings.routed_after_seconds)
            if self._leaving():
                self._tell(given)
            else:
                self._given.setdefault((placed.dispatch.account, placed.dispatch.model), deque()).append(given)
            return
        self._ledger.failed(placed.dispatch)
        if isinstance(result, RecordTooLarge):
            self.close(messages.failed(placed.entry, unplaced.too_large(), self._topics))
        else:
            self._returned.append(placed)
            self._closed()

    def tell(self, *, all_: bool = False) -> None:
        """Close what its node has told of; say StepRouted of what was not taken up in time, or of `all_` that is left."""
        now = self._clock.monotonic()
        for where, line in list(self._given.items()):
            while line and (line[0].placed.dispatch.taken_up or all_ or line[0].tell_at <= now):
                given = line.popleft()
                if given.placed.dispatch.taken_up:
                    given.placed.entry.finish()
                else:
                    self._tell(given)
            if not line:
                del self._given[where]

    def _tell(self, given: _Given) -> None:
        self.close(messages.routed(given.placed, given.offset, given.mailbox, self._topics))

    def close(self, closing: Closing) -> None:
        """Send this; until Kafka has it, its record stays uncommitted."""
        self._outbox.put(closing.message, partial(self._on_closed, closing))

    def _on_closed(self, closing: Closing, result: Sent) -> None:
        if isinstance(result, RecordTooLarge) and closing.entry is not None:
            self.close(messages.failed(closing.entry, unplaced.too_large(), self._topics))
            return
        if closing.window is not None:
            closing.window.finish(closing.offset)
        self._closed()
