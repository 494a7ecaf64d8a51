"""Positions to commit: what everything before which is claimed or released in the log. One commit at a time, merged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from shared.clock import Clock
from shared.errors import LogError
from shared.kafka.port import Consumer, TopicPartition
from shared.telemetry import logs

log = logs.get(__name__)

RETRY_SECONDS = 0.5


class Positions:
    """Acknowledged, not yet committed. `shortest_seconds` lies between two commits."""

    def __init__(self, clock: Clock, shortest_seconds: float) -> None:
        self._clock, self._shortest = clock, shortest_seconds
        self._waiting: dict[TopicPartition, int] = {}
        self._some = asyncio.Event()

    def acknowledged(self, positions: Mapping[TopicPartition, int]) -> None:
        """These may be committed: next offsets to read."""
        self._waiting.update(positions)
        self._some.set()

    async def run(self, consumer: Callable[[], Consumer]) -> None:
        """Commit for ever, on the consumer of the moment. A commit that fails is repeated together with what came since."""
        while True:
            await self._some.wait()
            try:
                await self.commit(consumer())
            except LogError as error:
                log.warning("commit_failed", code=error.code)
                await self._clock.sleep(RETRY_SECONDS)
            await self._clock.sleep(self._shortest)

    async def commit(self, consumer: Consumer) -> None:
        """Commit what waits, as far as it is still assigned. Raises LogError; then it waits on.

        What lies beyond where the consumer stands was reached in a topic that was made anew since: dropped.
        """
        assigned = consumer.assignment()
        reached = {tp: consumer.reached(tp) for tp in assigned}
        offsets = {tp: offset for tp, offset in self._waiting.items() if tp in assigned and offset <= (reached[tp] or offset)}
        dropped = self._waiting.keys() - offsets.keys()
        if offsets:
            await consumer.commit(offsets)
        self._waiting = {tp: offset for tp, offset in self._waiting.items() if tp not in dropped and offset > offsets.get(tp, -1)}
        if not self._waiting:
            self._some.clear()
