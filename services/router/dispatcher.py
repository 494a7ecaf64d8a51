"""Dispatcher: sends what was decided. First the work records of a round, then, beside the next round, StepRouted and all else that
closes a step; only what closed a step lets its record be committed past. Kafka's refusals are waited out, nothing is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Sequence

from services.router import messages, unplaced
from services.router.ledger import Ledger
from services.router.messages import Closing, Placed
from services.router.routing import Refused
from services.router.settings import RouterPolicy
from shared.clock import Clock
from shared.contracts.base import CLASSES
from shared.errors import LogError, RecordTooLarge
from shared.kafka.dead_letters import DeadLetters
from shared.kafka.port import Appended, Message, Producer
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

_ROUTED = {c: metrics.STEPS_ROUTED.labels(c.value) for c in CLASSES}
_SECONDS = {c: metrics.ROUTE_SECONDS.labels(c.value) for c in CLASSES}
_SEND_FAILURES = metrics.SEND_FAILURES.labels("router")
CLOSINGS_A_SEND = 1024
COMPANY = 256
"""So many closings are worth a send of their own."""


class Dispatcher:
    """`closed` is called after records were finished, or could not be."""

    def __init__(
        self, producer: Producer, topics: Topics, ledger: Ledger, *, policy: RouterPolicy, clock: Clock, closed: Callable[[], None]
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._closed = closed
        self._dead_letters = DeadLetters(producer, "router", clock, topics)
        self._closings: deque[Closing] = deque()
        self._pending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sending = False

    async def give(self, round_: Sequence[Placed]) -> list[Placed]:
        """Send the steps to their nodes' mailboxes; returns those that Kafka did not take. They are in nobody's count."""
        self._sending = True
        self._idle.clear()
        try:
            written = [(placed, work) for placed in round_ if (work := self._write(placed)) is not None]
            sent = await self._send([work for _, work in written])
            refused = [placed for (placed, _), result in zip(written, sent, strict=True) if not self._record(placed, result)]
        finally:
            self._sending = False
            self._settle_if_idle()
        self._count(round_, refused)
        return refused

    def _write(self, placed: Placed) -> Message | None:
        """None where what the step holds cannot be written: it has failed."""
        try:
            return messages.work(placed, self._topics)
        except Exception as error:
            log.failure("step_not_written", error, job=placed.entry.step.job)
            self._ledger.failed(placed.dispatch)
            self.close(messages.failed(placed.entry, unplaced.internal(), self._topics))
            return None

    def _record(self, placed: Placed, result: Appended | Exception) -> bool:
        if isinstance(result, Appended):
            self._ledger.acknowledged(placed.dispatch, result.offset)
            self.close(messages.routed(placed, result.offset, result.partition, self._topics), soon=False)
            return True
        self._ledger.failed(placed.dispatch)
        if isinstance(result, RecordTooLarge):
            self.close(messages.failed(placed.entry, unplaced.too_large(), self._topics))
            return True
        return False

    def _count(self, round_: Sequence[Placed], refused: Sequence[Placed]) -> None:
        now = self._clock.monotonic()
        for placed in round_:
            _SECONDS[placed.entry.priority_class].observe(now - placed.entry.arrived_at)
        for priority_class, count in Counter(placed.entry.priority_class for placed in round_).items():
            _ROUTED[priority_class].inc(count)
        if refused:
            _SEND_FAILURES.inc(len(refused))
            log.warning("steps_not_sent", count=len(refused))

    def refuse(self, refused: Refused) -> None:
        """Its record is no step: to the dead letters."""
        message = self._dead_letters.message(refused.record, refused.error)
        self._dead_letters.count(refused.record, refused.error)
        self.close(Closing(message, refused.window, refused.record.offset))

    def close(self, closing: Closing, *, soon: bool = True) -> None:
        """Send this, with `soon` at once; until Kafka has it, its record stays uncommitted.

        StepRouted only starts a claim timeout of seconds: it waits a little for company, which saves the planner most of its wake-ups.
        """
        self._closings.append(closing)
        self._idle.clear()
        self._pending.set()
        if soon or len(self._closings) >= COMPANY:
            self._hurry.set()

    async def run(self) -> None:
        """Send closings until cancelled. One batch is under way at a time, so the deque holds at most what the windows hold."""
        while True:
            await self._pending.wait()
            await self._wait_for_company()
            batch = [self._closings[i] for i in range(min(len(self._closings), CLOSINGS_A_SEND))]
            sent = await self._send([closing.message for closing in batch])
            for _ in batch:
                self._closings.popleft()
            again = [self._fate(closing, result) for closing, result in zip(batch, sent, strict=True)]
            self._closings.extendleft(closing for closing in reversed(again) if closing is not None)
            if not self._closings:
                self._pending.clear()
            self._settle_if_idle()
            self._closed()
            if any(isinstance(result, Exception) for result in sent):
                await self._clock.sleep(self._policy.send_retry_seconds)

    async def _wait_for_company(self) -> None:
        if not self._hurry.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._policy.routed_linger_seconds):
                    await self._hurry.wait()
        self._hurry.clear()

    def _fate(self, closing: Closing, result: Appended | Exception) -> Closing | None:
        """None when the record is finished, else what is to be sent next for it."""
        if isinstance(result, Appended):
            closing.window.finish(closing.offset)
            return None
        _SEND_FAILURES.inc()
        if isinstance(result, RecordTooLarge):
            log.error("closing_too_large", topic=closing.message.topic, offset=closing.offset)
            if closing.entry is None:
                closing.window.finish(closing.offset)
                return None
            return messages.failed(closing.entry, unplaced.too_large(), self._topics)
        return closing

    async def _send(self, batch: list[Message]) -> Sequence[Appended | Exception]:
        try:
            return await self._producer.send_many(batch)
        except LogError as error:
            return [error] * len(batch)

    async def settle(self, timeout_seconds: float) -> None:
        """Wait until nothing is on its way, but not for ever."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("not_settled", closings=len(self._closings))

    def _settle_if_idle(self) -> None:
        if not self._sending and not self._closings:
            self._idle.set()
