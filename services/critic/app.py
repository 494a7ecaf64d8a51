"""The critic's process: reads `critiques`, judges, and answers on `outcomes`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from services.critic.checking import Checking
from services.critic.settings import CriticSettings
from shared.processing.blobs import Blobs
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.tail import IDLE_WAIT_MS
from shared.processing.window import WindowBounds
from shared.service import Environment, kafka_silence
from shared.service.processor import Processor
from shared.services import group_of


def build(environment: Environment, settings: CriticSettings | None = None) -> Critic:
    """The critic of one process; settings come from its environment unless given."""
    return Critic(environment, settings or CriticSettings())


class Critic:
    """Implements `shared.service.Service`."""

    name = "critic"

    def __init__(self, environment: Environment, settings: CriticSettings) -> None:
        self._env, self._settings = environment, settings
        clock, topics, wake, held = environment.clock, environment.topics, asyncio.Event(), settings.held_records
        self._outbox = Outbox(clock, self.name, topics)
        blobs = Blobs(environment.log, clock, topics, service=self.name, instance=environment.instance)
        self.intake = Intake(
            self._outbox,
            service=self.name,
            bounds=WindowBounds(open=settings.open_critiques, span=2 * held, records=held, bytes=settings.held_bytes),
            cap=environment.settings.dead_letter_cap,
            clock=clock,
            arrived=wake.set,
        )
        self._processor = Processor(self._connect, reasons=self._reasons, drain=self.intake.drain)
        self._processor.closes(blobs)
        spawn = self._processor.spawn
        self.checking = Checking(self.intake, self._outbox, blobs, topics=topics, clock=clock, wake=wake, spawn=spawn)
        self.run, self.readiness = self._processor.run, self._processor.readiness

    async def _connect(self) -> None:
        env, processor = self._env, self._processor
        producer = await processor.open(env.log.producer(client_id=env.instance))
        group, topics = group_of(self.name, env.topics.settings.prefix), (env.topics.critiques,)
        intake = await processor.open(self.intake.join(env.log, group, env.instance, topics, fetch_max_wait_ms=IDLE_WAIT_MS))
        processor.spawn(self._outbox.run(producer), intake.run(), intake.run_commits(self._settings.commit_seconds), self.checking.run())

    def _reasons(self) -> Iterator[str]:
        yield from kafka_silence(self.intake.polled_at, self._env.clock.monotonic())
        yield from self.intake.stopped
        yield from self.checking.tries.undone
