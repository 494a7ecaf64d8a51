"""Dispatcher: sends what was decided. First the work records of a round, then, beside the next round, StepRouted and all else that
closes a step; only what closed a step lets its record be committed past. Nothing is dropped, and no mailbox waits for another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from services.router import messages, unplaced
from services.router.messages import Closing, Placed
from services.router.settings import RouterSettings
from shared.clock import Clock, within
from shared.contracts.base import CLASSES
from shared.errors import RecordTooLarge
from shared.kafka.port import Appended, Message
from shared.placement.ledger import CreditLedger
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


class Dispatcher:
    """`closed` is called after records were finished, or steps have come back."""

    def __init__(
        self, outbox: Outbox, topics: Topics, ledger: CreditLedger, *, settings: RouterSettings, clock: Clock, closed: Callable[[], None]
    ) -> None:
        self._outbox = outbox
        self._topics = topics
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._closed = closed
        self._returned: list[Placed] = []
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
            self.close(messages.routed(placed, result.offset, result.partition, self._topics), soon=False)
            return
        self._ledger.failed(placed.dispatch)
        if isinstance(result, RecordTooLarge):
            self.close(messages.failed(placed.entry, unplaced.too_large(), self._topics))
        else:
            self._returned.append(placed)
            self._closed()

    def close(self, closing: Closing, *, soon: bool = True) -> None:
        """Send this, with `soon` at once; until Kafka has it, its record stays uncommitted.

        StepRouted only starts a claim timeout of seconds: it waits a little for company, which saves the planner most of its wake-ups.
        """
        linger = 0.0 if soon else self._settings.routed_linger_seconds
        self._outbox.put(closing.message, partial(self._on_closed, closing), linger_seconds=linger)

    def _on_closed(self, closing: Closing, result: Sent) -> None:
        if isinstance(result, RecordTooLarge) and closing.entry is not None:
            self.close(messages.failed(closing.entry, unplaced.too_large(), self._topics))
            return
        if closing.window is not None:
            closing.window.finish(closing.offset)
        self._closed()
