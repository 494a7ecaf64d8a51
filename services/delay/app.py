"""The delay service's process: reads the tiers into memory up to a bound, sends on what is ready, commits past what was sent."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from services.delay.forwarder import Forwarder
from services.delay.handlers import DelayReader
from services.delay.held import HeldRecords
from services.delay.settings import DelayPolicy, DelaySettings
from shared.errors import InvalidInput
from shared.kafka.assignor import BalancedAssignor
from shared.kafka.port import Consumer
from shared.processing.intake import Intake
from shared.processing.tries import Tries, read
from shared.processing.window import WindowBounds
from shared.service import Environment, Readiness, kafka_silence
from shared.services import group_of
from shared.telemetry import metrics

FETCH_MAX_WAIT_MS = 100
"""A resumed partition waits at most this long for the fetch in flight."""
FETCH_BYTES = 256 * 1024
"""Of one partition in one fetch."""
IDLE_SECONDS = 1.0
"""The wall clock may be set: it is looked at no later than this."""
LAST_SEND_SECONDS = 5.0
"""A service that is told to stop waits so long for what it is sending: committed past, it is not sent again by the next owner."""


def build(environment: Environment, policy: DelayPolicy | None = None) -> Delay:
    """The delay service of one process; `policy` instead of the environment's settings in tests."""
    return Delay(environment, policy or DelaySettings().delay)


class Delay:
    """Implements `shared.service.Service`."""

    name = "delay"

    def __init__(self, environment: Environment, policy: DelayPolicy) -> None:
        self._env = environment
        self._policy = policy
        self._clock = environment.clock
        self._reader = DelayReader(environment.topics)
        self._held = HeldRecords()
        self._wake = asyncio.Event()
        self._tries = Tries()
        self._intake: Intake | None = None
        self._forwarder: Forwarder | None = None

    def asgi(self) -> Any | None:
        return None

    def readiness(self) -> Readiness:
        polled_at, stopped = (self._intake.polled_at, self._intake.stopped) if self._intake is not None else (None, ())
        reasons = (*kafka_silence(polled_at, self._clock.monotonic()), *stopped, *self._tries.undone)
        return Readiness(not reasons, reasons)

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            living = group.create_task(self._live())
            await stop.wait()
            if self._intake is not None and self._forwarder is not None:
                self._intake.suspended = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_SEND_SECONDS):
                        await self._forwarder.outbox.idle()
                await self._intake.commit()
            living.cancel()

    async def _live(self) -> None:
        """Connect, then hold and forward until cancelled."""
        async with AsyncExitStack() as stack:
            producer = await self._env.log.producer(client_id=self._env.instance)
            stack.push_async_callback(producer.close)
            consumer = await self._env.log.consumer(
                client_id=self._env.instance,
                group=group_of("delay", self._env.topics.settings.prefix),
                reset="earliest",
                assignor=BalancedAssignor(),
                fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
                max_partition_fetch_bytes=FETCH_BYTES,
            )
            stack.push_async_callback(consumer.close)
            forwarder = self._forwarder = Forwarder(
                producer, self._env.topics, self._held, policy=self._policy, clock=self._clock, sent=self._wake.set
            )
            intake = self._intake = self._open(consumer)
            await intake.start(tuple(self._reader.tiers))
            async with asyncio.TaskGroup() as group:
                group.create_task(intake.run())
                group.create_task(forwarder.run())
                group.create_task(self._forward(intake, forwarder))
                group.create_task(self._commit(intake))

    def _open(self, consumer: Consumer) -> Intake:
        return Intake(
            consumer,
            service=self.name,
            bounds=_bounds(self._policy),
            cap=self._env.settings.dead_letter_cap,
            clock=self._clock,
            arrived=self._wake.set,
            dropped=self._held.drop_lost,
        )

    async def _forward(self, intake: Intake, forwarder: Forwarder) -> None:
        while True:
            self._wake.clear()
            with self._tries.chore("forwarding"):
                if not intake.suspended:
                    self._admit(intake, forwarder)
                    await forwarder.forward()
                    intake.relieve()
            metrics.DELAYS_HELD.set(len(self._held))
            await self._until_ready(intake)

    def _admit(self, intake: Intake, forwarder: Forwarder) -> None:
        """Take into memory all that the windows hold."""
        for window in intake.windows.values():
            while (record := window.take()) is not None:
                try:
                    self._held.add(read(record, partial(self._reader.read, window=window, now=self._clock.wall())))
                except InvalidInput as error:
                    forwarder.refuse(record, window, error)

    async def _until_ready(self, intake: Intake) -> None:
        """Wait for the next moment that something is ready, or for news."""
        next_at = self._held.next_at
        wait = IDLE_SECONDS if next_at is None or intake.suspended else min(IDLE_SECONDS, next_at - self._clock.wall())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait)):
                await self._wake.wait()

    async def _commit(self, intake: Intake) -> None:
        while True:
            await self._clock.sleep(self._policy.commit_seconds)
            if not intake.suspended:
                await intake.commit()


def _bounds(policy: DelayPolicy) -> WindowBounds:
    held = policy.held_records
    return WindowBounds(open=held, span=2 * held, records=held, bytes=policy.held_bytes)
