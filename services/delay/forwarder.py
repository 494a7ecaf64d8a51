"""Forwarder: holds what is read and sends on what is ready. A record is committed past only when Kafka has what became of it."""

from __future__ import annotations

import asyncio
from functools import partial

from services.delay.handlers import DelayReader
from services.delay.held import HeldRecords, Waiter, onward
from services.delay.settings import DelaySettings
from shared.clock import Clock, within
from shared.errors import InvalidInput
from shared.kafka.port import Record
from shared.processing.delays import TIER_SECONDS
from shared.processing.intake import Intake
from shared.processing.lane import Sent
from shared.processing.outbox import Outbox
from shared.processing.tries import Tries, read
from shared.processing.window import Window
from shared.telemetry import metrics
from shared.topics import Topics

IDLE_SECONDS = 1.0
"""The wall clock may be set: it is looked at no later than this."""
_FORWARDED = {tier: metrics.DELAYED_FORWARDED.labels(tier) for tier in TIER_SECONDS}


class Forwarder:
    """What is on its way is bounded by the windows of the intake. `wake`: set when records have come or were finished."""

    def __init__(
        self,
        intake: Intake,
        outbox: Outbox,
        held: HeldRecords,
        *,
        topics: Topics,
        settings: DelaySettings,
        clock: Clock,
        wake: asyncio.Event,
    ) -> None:
        self._intake, self._outbox, self._held, self._topics, self._clock, self._wake = intake, outbox, held, topics, clock, wake
        self._most = settings.send_records
        self.reader, self.tries = DelayReader(topics), Tries()

    async def run(self) -> None:
        """Hold and forward until cancelled."""
        while True:
            self._wake.clear()
            with self.tries.chore("forwarding"):
                if not self._intake.suspended:
                    for waiter in self._intake.take(self._read):  # all that the windows hold
                        self._held.add(waiter)
                    await self.forward()
                    self._intake.relieve()
            metrics.DELAYS_HELD.set(len(self._held))
            await within(self._seconds_left(), self._wake.wait())

    def _read(self, window: Window, record: Record) -> Waiter:
        return self.reader.read(record, window, self._clock.wall())

    def _seconds_left(self) -> float:
        """Until the next moment that something is ready."""
        next_at = self._held.next_at
        if next_at is None or self._intake.suspended:
            return IDLE_SECONDS
        return max(0.0, min(IDLE_SECONDS, next_at - self._clock.wall()))

    async def forward(self) -> None:
        """Send on everything that is ready."""
        now = self._clock.wall()
        while ready := self._held.take(now, self._most):
            for waiter in ready:
                self._send(waiter, now)
            await self._clock.sleep(0)

    def _send(self, waiter: Waiter, now: float) -> None:
        """What the record holds may be such that it cannot be sent on: it is refused."""
        try:
            message = read(waiter.record, lambda _: onward(waiter, self._topics, now))
        except InvalidInput as error:
            self._intake.refuse(waiter.record, waiter.window, error)
            return
        self._outbox.put(message, partial(self._on_sent, waiter))

    def _on_sent(self, waiter: Waiter, result: Sent) -> None:
        if isinstance(result, Exception):
            self._intake.refuse(waiter.record, waiter.window, result)
            return
        now = self._clock.wall()
        waiter.finish()
        _FORWARDED[waiter.tier].inc()
        if waiter.due_at <= now:
            metrics.DELAY_LATENESS_SECONDS.observe(now - waiter.due_at)
        self._wake.set()
