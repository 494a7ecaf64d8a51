"""aiokafka's own log lines, thinned: while a broker is away it writes some fifty a second. One of each kind per half minute is enough."""

from __future__ import annotations

import logging

from shared.clock import Clock

EVERY_SECONDS = 30.0
MAX_KINDS = 200
LOGGERS = (
    "aiokafka",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.producer",
    "aiokafka.producer.sender",
)


class Thin(logging.Filter):
    """Lets the first line of each kind (its template) through, then one every `EVERY_SECONDS`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock.monotonic()
        kind = str(record.msg)
        if now - self._last.get(kind, float("-inf")) < EVERY_SECONDS:
            return False
        if len(self._last) >= MAX_KINDS:
            self._last.clear()
        self._last[kind] = now
        return True


def thin_out(clock: Clock) -> None:
    """Put one filter on each of aiokafka's loggers; a second call changes nothing."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(present, Thin) for present in logger.filters):
            logger.addFilter(Thin(clock))
