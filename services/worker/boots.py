"""Earlier boots of this node: as long as one may still run, this one offers nothing and reads no mailbox. Then it says that theirs is void.

An earlier boot is gone when it said that it left (its tombstone), when whoever started this process saw that one end, or when its credits
and its renewals have been silent for so long by this boot's own watch. Credits alone tell too little: one that is slow at them still
works. A boot that waits says so in its Node record: of one that died while it waited nobody knows whether those before it run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf

from services.worker.wiring import WorkerContext
from shared.contracts import headers
from shared.contracts.credits import Credits
from shared.contracts.node import Node
from shared.kafka.port import Log, Record, TopicPartition
from shared.placement.facts import DEAF_SECONDS
from shared.processing.folding import fold_each
from shared.processing.tail import ASKED_WAIT_MS, Tail, at_end
from shared.tasks import ended
from shared.telemetry import logs

log = logs.get(__name__)

_LOOK_SECONDS = 0.25
_RENEWED = b"renewed"


class Silence:
    """For how long another boot has not been heard, as far as we hear at all. Pure; times are monotonic seconds."""

    def __init__(self) -> None:
        self._since, self._own_at = 0.0, -inf

    def on_other(self, now: float) -> None:
        """Another boot told of itself."""
        self._since = now

    def on_own(self, now: float) -> None:
        """A record of our own came back."""
        if now - self._own_at > DEAF_SECONDS:
            self._since = now
        self._own_at = now

    def seconds(self, now: float) -> float:
        return now - self._since if now - self._own_at <= DEAF_SECONDS else 0.0


class EarlierBoots:
    """Those of the node that `here` is a boot of."""

    def __init__(self, here: WorkerContext) -> None:
        self.waits: bool | None = None
        """One may still run; None while `nodes` has not been read."""
        self._here = here
        self._key, self._silence = here.node.encode(), Silence()
        self._outcomes = [TopicPartition(here.topics.outcomes, home) for home in range(here.topics.settings.home_partitions)]

    def look(self, registered: Node | None) -> None:
        """What `nodes` said of this node before this boot came; the first look counts."""
        if self.waits is None:
            self.waits = registered is not None and (registered.boot != self._here.dead_boot or registered.waits)

    def left(self) -> None:
        """An earlier one said that it left."""
        if self.waits:
            self._over()

    async def gone(self, log_: Log, client_id: str) -> None:
        """Return when none runs. Raises LogError."""
        if not self.waits:
            return
        log.info("earlier_boot_may_run", node=self._here.node, silent_seconds=self._here.settings.earlier_silent_seconds)
        clock, told = self._here.clock, self._on_outcomes
        tail = Tail(log_, clock, self._outcomes, client_id=client_id, begin=at_end, handle=told, fetch_max_wait_ms=ASKED_WAIT_MS)
        reading = asyncio.create_task(tail.run())
        try:
            await tail.positioned.wait()
            self._silence = Silence()
            while self.waits:
                await self._here.clock.sleep(_LOOK_SECONDS)
                if self._is_silent():
                    await tail.read_to_end(*self._outcomes)
                    if self._is_silent():
                        self._over()
        finally:
            await ended(reading)

    def _is_silent(self) -> bool:
        return self._silence.seconds(self._here.clock.monotonic()) >= self._here.settings.earlier_silent_seconds

    def _over(self) -> None:
        log.info("earlier_boot_is_gone", node=self._here.node)
        self.waits = False
        self._here.node_news.set()

    def on_credits(self, record: Record) -> None:
        """A record of `credits` that may be this node's. Raises ValidationError."""
        if self.waits and record.key == self._key and record.value is not None:
            now, told = self._here.clock.monotonic(), Credits.model_validate_json(record.value)
            (self._silence.on_own if told.boot == self._here.boot else self._silence.on_other)(now)

    def _on_outcomes(self, _: TopicPartition, records: Sequence[Record]) -> None:
        fold_each("worker", records, self._on_outcome)

    def _on_outcome(self, record: Record) -> None:
        if record.key == self._key and headers.find(record.headers, headers.TYPE) == _RENEWED:
            self._silence.on_other(self._here.clock.monotonic())
