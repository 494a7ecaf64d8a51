"""Forwarder: sends on what is ready, and lets a record be committed past only when Kafka has what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.delay.held import Held, Waiter, onward
from services.delay.settings import DelayPolicy
from shared.clock import Clock
from shared.contracts.delayed import Delayed
from shared.delays import TIER_SECONDS
from shared.errors import LogError, RecordTooLarge
from shared.kafka.port import Appended, Message, Producer
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

_FORWARDED = {tier: metrics.DELAYED_FORWARDED.labels(tier) for tier in TIER_SECONDS}
_SEND_FAILURES = metrics.SEND_FAILURES.labels("delay")

Refuse = Callable[[Waiter, RecordTooLarge], None]


class Forwarder:
    """`refuse` gets what can never be sent."""

    def __init__(self, producer: Producer, topics: Topics, held: Held, *, policy: DelayPolicy, clock: Clock, refuse: Refuse) -> None:
        self._producer = producer
        self._topics = topics
        self._held = held
        self._policy = policy
        self._clock = clock
        self._refuse = refuse

    async def forward(self) -> bool:
        """Send on one batch of what is ready; False when Kafka did not take all of it. That is held for a while longer."""
        now = self._clock.wall()
        ready = self._held.take(now, self._policy.send_records)
        if not ready:
            return True
        sent = await self._send([onward(waiter, self._topics, now) for waiter in ready])
        failures = [self._settle(waiter, result, now) for waiter, result in zip(ready, sent, strict=True)]
        return not any(failures)

    def _settle(self, waiter: Waiter, result: Appended | Exception, now: float) -> bool:
        """True when it must be tried again."""
        if isinstance(result, Appended):
            waiter.finish()
            _FORWARDED[waiter.tier].inc()
            if _is_last_hop(waiter.delayed, now):
                metrics.DELAY_LATENESS_SECONDS.observe(max(0.0, now - waiter.delayed.due_at))
            return False
        _SEND_FAILURES.inc()
        if isinstance(result, RecordTooLarge):
            self._refuse(waiter, result)
            return False
        waiter.ready_at = now + self._policy.send_retry_seconds
        self._held.add(waiter)
        return True

    async def _send(self, messages: list[Message]) -> Sequence[Appended | Exception]:
        try:
            return await self._producer.send_many(messages)
        except LogError as error:
            log.warning("not_forwarded", code=error.code, message=error.message)
            return [error] * len(messages)


def _is_last_hop(delayed: Delayed, now: float) -> bool:
    return delayed.due_at <= now
