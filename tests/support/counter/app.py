"""Counter: how many jobs of each tenant have ended, as a metric. The smallest service that the kit makes.

Consumes  `results` (group `tutti-counter`).
Produces  `dead-letters`.
Owns      nothing durable: a record is committed past once it is counted.
On failure  what was counted and not committed is counted again.
Scales by   adding counters, up to the partitions of `results`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.window import WindowBounds
from shared.service import Environment, kafka_silence
from shared.service.processor import Processor
from shared.services import group_of
from tests.support.counter.handlers import count, read_result
from tests.support.counter.settings import CounterSettings


def build(environment: Environment, settings: CounterSettings | None = None) -> ResultCounter:
    """The counter of one process; settings come from its environment unless given."""
    return ResultCounter(environment, settings or CounterSettings())


class ResultCounter:
    """Implements `shared.service.Service`."""

    name = "counter"

    def __init__(self, environment: Environment, settings: CounterSettings) -> None:
        self._env, self._settings, self._wake = environment, settings, asyncio.Event()
        self._outbox = Outbox(environment.clock, self.name, environment.topics)
        cap, clock = environment.settings.dead_letter_cap, environment.clock
        self.intake = Intake(self._outbox, service=self.name, bounds=WindowBounds(), cap=cap, clock=clock, arrived=self._wake.set)
        self._processor = Processor(self._connect, reasons=self._reasons, drain=self.intake.drain)
        self.run, self.readiness = self._processor.run, self._processor.readiness

    async def _connect(self) -> None:
        env, processor = self._env, self._processor
        producer = await processor.open(env.log.producer(client_id=env.instance))
        group = group_of(self.name, env.topics.settings.prefix)
        intake = await processor.open(self.intake.join(env.log, group, env.instance, [env.topics.results]))
        processor.spawn(self._outbox.run(producer), intake.run(), intake.run_commits(self._settings.commit_seconds), self._count())

    async def _count(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for window, offset, result in self.intake.take(read_result):
                count(result)
                window.finish(offset)
            self.intake.relieve()

    def _reasons(self) -> Iterator[str]:
        yield from kafka_silence(self.intake.polled_at, self._env.clock.monotonic())
        yield from self.intake.stopped
