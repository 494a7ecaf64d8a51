"""Forwarder: sends on what is ready, and lets a record be committed past only when Kafka has what became of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from services.delay.held import Held, Waiter, onward
from services.delay.settings import DelayPolicy
from shared.clock import Clock
from shared.delays import TIER_SECONDS
from shared.errors import InvalidInput, LogError, RecordTooLarge
from shared.kafka.dead_letters import DeadLetters
from shared.kafka.port import Appended, Message, Producer, Record
from shared.kafka.window import Window
from shared.processing.tries import read
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

_FORWARDED = {tier: metrics.DELAYED_FORWARDED.labels(tier) for tier in TIER_SECONDS}
_SEND_FAILURES = metrics.SEND_FAILURES.labels("delay")


class Forwarder:
    """Takes from what is held. Refused records become dead letters with the next batch; their number is bounded by the windows."""

    def __init__(self, producer: Producer, topics: Topics, held: Held, *, policy: DelayPolicy, clock: Clock) -> None:
        self._producer = producer
        self._topics = topics
        self._held = held
        self._policy = policy
        self._clock = clock
        self._dead_letters = DeadLetters(producer, "delay", clock, topics)
        self._refused: deque[tuple[Message, Window, int]] = deque()

    def refuse(self, record: Record, window: Window, error: Exception) -> None:
        """It can never be sent on: to the dead letters."""
        window.died()
        self._refused.append((self._dead_letters.message(record, error), window, record.offset))
        self._dead_letters.count(record, error)

    async def forward(self) -> bool:
        """Send on everything that is ready; False when Kafka did not take all of it: the rest waits a while longer."""
        complete = await self._bury()
        now = self._clock.wall()
        while ready := self._held.take(now, self._policy.send_records):
            written = [(waiter, message) for waiter in ready if (message := self._onward(waiter, now)) is not None]
            sent = await self._send([message for _, message in written])
            failures = [self._settle(waiter, result, now) for (waiter, _), result in zip(written, sent, strict=True)]
            complete = complete and not any(failures)
        return complete

    def _onward(self, waiter: Waiter, now: float) -> Message | None:
        """None where what the record holds cannot be sent on: it is refused."""
        try:
            return read(waiter.record, lambda _: onward(waiter, self._topics, now))
        except InvalidInput as error:
            self.refuse(waiter.record, waiter.window, error)
            return None

    def _settle(self, waiter: Waiter, result: Appended | Exception, now: float) -> bool:
        """True when it must be tried again."""
        if isinstance(result, Appended):
            waiter.finish()
            _FORWARDED[waiter.tier].inc()
            if waiter.due_at <= now:
                metrics.DELAY_LATENESS_SECONDS.observe(now - waiter.due_at)
            return False
        _SEND_FAILURES.inc()
        if isinstance(result, RecordTooLarge):
            self.refuse(waiter.record, waiter.window, result)
            return False
        waiter.ready_at = now + self._policy.send_retry_seconds
        self._held.add(waiter)
        return True

    async def _bury(self) -> bool:
        batch = list(self._refused)
        sent = await self._send([message for message, _, _ in batch]) if batch else []
        self._refused.clear()
        for refused, result in zip(batch, sent, strict=True):
            _, window, offset = refused
            if isinstance(result, Appended):
                window.finish(offset)
            else:
                self._refused.append(refused)
        return not self._refused

    async def _send(self, messages: list[Message]) -> Sequence[Appended | Exception]:
        try:
            return await self._producer.send_many(messages)
        except LogError as error:
            log.warning("not_forwarded", code=error.code, message=error.message)
            return [error] * len(messages)
