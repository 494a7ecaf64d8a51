"""The delay service's process: reads the tiers into memory up to a bound, sends on what is ready, commits past what was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from services.delay.forwarder import Forwarder
from services.delay.held import HeldRecords
from services.delay.settings import DelaySettings
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.tail import IDLE_WAIT_MS
from shared.processing.window import WindowBounds
from shared.service import Environment, kafka_silence
from shared.service.processor import Processor
from shared.services import group_of


def build(environment: Environment, settings: DelaySettings | None = None) -> Delay:
    """The delay service of one process; settings come from its environment unless given."""
    return Delay(environment, settings or DelaySettings())


class Delay:
    """Implements `shared.service.Service`."""

    name = "delay"

    def __init__(self, environment: Environment, settings: DelaySettings) -> None:
        self._env, self._settings = environment, settings
        clock, topics, wake, held = environment.clock, environment.topics, asyncio.Event(), settings.held_records
        self._outbox, self.held = Outbox(clock, self.name, topics), HeldRecords()
        self.intake = Intake(
            self._outbox,
            service=self.name,
            bounds=WindowBounds(open=held, span=2 * held, records=held, bytes=settings.held_bytes),
            cap=environment.settings.dead_letter_cap,
            clock=clock,
            arrived=wake.set,
            dropped=self.held.drop_lost,
        )
        self.forwarder = Forwarder(self.intake, self._outbox, self.held, topics=topics, settings=settings, clock=clock, wake=wake)
        self._processor = Processor(self._connect, reasons=self._reasons, drain=self.intake.drain)
        self.run, self.readiness = self._processor.run, self._processor.readiness

    async def _connect(self) -> None:
        env, processor = self._env, self._processor
        producer = await processor.open(env.log.producer(client_id=env.instance))
        group = group_of(self.name, env.topics.settings.prefix)
        tiers = tuple(self.forwarder.reader.tiers)
        intake = await processor.open(self.intake.join(env.log, group, env.instance, tiers, fetch_max_wait_ms=IDLE_WAIT_MS))
        processor.spawn(self._outbox.run(producer), intake.run(), intake.run_commits(self._settings.commit_seconds), self.forwarder.run())

    def _reasons(self) -> Iterator[str]:
        yield from kafka_silence(self.intake.polled_at, self._env.clock.monotonic())
        yield from self.intake.stopped
        yield from self.forwarder.tries.undone
