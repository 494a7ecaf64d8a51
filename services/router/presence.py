"""Presence: announces on `presence` and `credits` that this router lives and how much waits here, so that nodes offer it places."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.router.settings import RouterSettings
from shared.clock import Clock, within
from shared.contracts.credits import RouterPresence
from shared.errors import LogError
from shared.kafka.port import Producer
from shared.placement.parties import presence
from shared.telemetry import logs
from shared.topics import Topics

log = logs.get(__name__)


class Presence:
    """Every second; at once when a backlog has grown to twice what was announced and waits for places, or nothing waits any more: until
    that is known no planner writes into a mailbox itself.
    """

    def __init__(
        self, producer: Producer, topics: Topics, router: str, *, settings: RouterSettings, clock: Clock, backlog: Callable[[], int]
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._router = router
        self._settings = settings
        self._clock = clock
        self._backlog = backlog
        self._announced = 0
        self._hurry = asyncio.Event()

    async def announce(self, *, leaving: bool = False) -> bool:
        """Write it where workers and where readers of credits look; False when Kafka did not take it."""
        backlog = 0 if leaving else self._backlog()
        said = RouterPresence(router=self._router, backlog=backlog, leaving=leaving)
        results = await self._producer.send_many(presence(said, self._topics))
        for error in results:
            if isinstance(error, LogError):
                log.warning("presence_not_sent", code=error.code, message=error.message)
                return False
        self._announced = backlog
        return True

    def consider(self, waiting: int) -> None:
        """`waiting` steps were left over for want of places. Cheap: called after every round."""
        if waiting > 2 * self._announced or (self._announced and not waiting):
            self._hurry.set()

    async def run(self) -> None:
        """Announce until cancelled."""
        while True:
            await self._clock.sleep(self._settings.presence_min_seconds)
            await within(self._settings.presence_seconds - self._settings.presence_min_seconds, self._hurry.wait())
            self._hurry.clear()
            await self.announce()
