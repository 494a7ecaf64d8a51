"""Records of `delays.<tier>` as waiters. A record that cannot ever be sent on is an InvalidRecord, for the dead letters."""

from __future__ import annotations

from services.delay.held import Waiter
from shared.contracts.delayed import Delayed
from shared.errors import InvalidRecord
from shared.kafka.port import Record
from shared.processing.delays import TIER_SECONDS
from shared.processing.tries import message
from shared.processing.window import Window
from shared.topics import Topics

LEAST_SECONDS = 0.5
"""A record that is not due stays at least so long before it hops again."""


class DelayReader:
    """Knows the tiers' topics and where records may go."""

    def __init__(self, topics: Topics) -> None:
        self.tiers = {topics.delay(tier): tier for tier in TIER_SECONDS}
        self._targets = {t.name: t.partitions for t in topics.all() if "delay" in t.family.written_by and t.name not in self.tiers}

    def read(self, record: Record, window: Window, now: float) -> Waiter:
        """Raises InvalidRecord. `now`: epoch seconds."""
        delayed = message(record, Delayed.model_validate_json, "delayed record")
        partitions = self._targets.get(delayed.topic)
        if partitions is None:
            raise InvalidRecord("the delayed record's topic is not one that takes delayed records")
        if delayed.partition is not None and delayed.partition >= partitions:
            raise InvalidRecord("the delayed record's partition does not exist")
        tier = self.tiers[record.topic]
        if delayed.due_at is None:
            due_at = now + (delayed.seconds or 0.0)
            return Waiter(record, tier, due_at, min(due_at, now + TIER_SECONDS[tier]), window, now)
        # By another machine's clock the tier may be over already, in every tier that it hops to: not faster than LEAST_SECONDS.
        tier_over_at = max(record.timestamp / 1000 + TIER_SECONDS[tier], now + LEAST_SECONDS)
        ready_at = min(delayed.due_at, tier_over_at)
        return Waiter(record, tier, delayed.due_at, ready_at, window)
