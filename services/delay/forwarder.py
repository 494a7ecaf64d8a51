"""Forwarder: sends on what is ready, and lets a record be committed past only when Kafka has what became of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from services.delay.held import HeldRecords, Waiter, onward
from services.delay.settings import DelayPolicy
from shared.clock import Clock
from shared.errors import InvalidInput
from shared.kafka.port import Producer, Record
from shared.processing.dead_letters import DeadLetters
from shared.processing.delays import TIER_SECONDS
from shared.processing.lane import Result
from shared.processing.outbox import Outbox
from shared.processing.tries import read
from shared.processing.window import Window
from shared.telemetry import metrics
from shared.topics import Topics

_FORWARDED = {tier: metrics.DELAYED_FORWARDED.labels(tier) for tier in TIER_SECONDS}


class Forwarder:
    """Takes from what is held; what is on its way is bounded by the windows. `sent`: called when records were finished."""

    def __init__(
        self, producer: Producer, topics: Topics, held: HeldRecords, *, policy: DelayPolicy, clock: Clock, sent: Callable[[], None]
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._held = held
        self._policy = policy
        self._clock = clock
        self._sent = sent
        self._dead_letters = DeadLetters(producer, "delay", clock, topics)
        self.outbox = Outbox(clock, "delay", topics)

    async def run(self) -> None:
        """Send until cancelled."""
        await self.outbox.run(self._producer)

    def refuse(self, record: Record, window: Window, error: Exception) -> None:
        """It can never be sent on: to the dead letters."""
        window.died()
        self._dead_letters.count(record, error)
        self.outbox.put(self._dead_letters.message(record, error), partial(self._on_buried, window, record.offset))

    def _on_buried(self, window: Window, offset: int, _: Result) -> None:
        window.finish(offset)
        self._sent()

    async def forward(self) -> None:
        """Send on everything that is ready."""
        now = self._clock.wall()
        while ready := self._held.take(now, self._policy.send_records):
            for waiter in ready:
                self._send(waiter, now)
            await self._clock.sleep(0)

    def _send(self, waiter: Waiter, now: float) -> None:
        """What the record holds may be such that it cannot be sent on: it is refused."""
        try:
            message = read(waiter.record, lambda _: onward(waiter, self._topics, now))
        except InvalidInput as error:
            self.refuse(waiter.record, waiter.window, error)
            return
        self.outbox.put(message, partial(self._on_sent, waiter))

    def _on_sent(self, waiter: Waiter, result: Result) -> None:
        if isinstance(result, Exception):
            self.refuse(waiter.record, waiter.window, result)
            return
        now = self._clock.wall()
        waiter.finish()
        _FORWARDED[waiter.tier].inc()
        if waiter.due_at <= now:
            metrics.DELAY_LATENESS_SECONDS.observe(now - waiter.due_at)
        self._sent()
