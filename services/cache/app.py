"""The cache's process: reads lookups and fills, answers planners, and keeps what it is told in its Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from services.cache.admin_api import build_admin
from services.cache.port import CacheStore, Purge
from services.cache.redis_store import NothingKept, RedisCache
from services.cache.semantic.meanings import Meanings, build_meanings
from services.cache.serving import Serving
from services.cache.settings import CacheSettings
from shared.kafka.assignor import HomeAssignor
from shared.processing.acts import told
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.tail import IDLE_WAIT_MS
from shared.processing.window import WindowBounds
from shared.service import Environment, kafka_silence
from shared.service.answering import keys_of
from shared.service.processor import Processor, every
from shared.services import group_of

LOOK_SECONDS = 5.0
"""So soon /readyz says that a store to which nothing is written is away."""


def build(
    environment: Environment, settings: CacheSettings | None = None, store: CacheStore | None = None, meanings: Meanings | None = None
) -> AnswerCache:
    """The cache of one process; settings come from its environment unless given."""
    settings = settings or CacheSettings()
    if store is None:
        store = RedisCache(settings, environment.topics.settings.prefix) if settings.store else NothingKept()
    return AnswerCache(environment, settings, store, meanings)


class AnswerCache:
    """Implements `shared.service.Service` and `shared.service.Answering`."""

    name = "cache"

    def __init__(self, environment: Environment, settings: CacheSettings, store: CacheStore, meanings: Meanings | None) -> None:
        self._env, self._settings = environment, settings
        clock, topics, wake = environment.clock, environment.topics, asyncio.Event()
        self._outbox, records = Outbox(clock, self.name, topics), settings.batch_records
        self.intake = Intake(
            self._outbox,
            service=self.name,
            bounds=WindowBounds(open=records, span=records, records=2 * records, bytes=settings.held_bytes),
            cap=environment.settings.dead_letter_cap,
            clock=clock,
            arrived=wake.set,
            dropped=self._dropped,
        )
        self._meanings = meanings or build_meanings(environment, settings, store, self._outbox)
        self._processor = Processor(self._connect, reasons=self._reasons, drain=self.intake.drain)
        self.serving = Serving(
            self.intake,
            self._outbox,
            store,
            self._meanings,
            topics=topics,
            settings=settings,
            clock=clock,
            wake=wake,
            spawn=self._processor.begin,
        )
        self._processor.closes(store, *([] if self._meanings is None else [self._meanings]))

        async def erase(tenant: str, _before: float) -> int:
            return await store.purge(Purge(tenant=tenant), dry=False)

        keys, self._keys = keys_of(environment, settings.keys_file, self.name, erase)
        self._api = build_admin(store, keys, clock, lambda act: self._outbox.send(told(topics, act)))
        self.run, self.readiness = self._processor.run, self._processor.readiness

    def asgi(self) -> Any:
        """What administrators ask of it over HTTP."""
        return self._api

    async def _connect(self) -> None:
        env, processor, settings = self._env, self._processor, self._settings
        producer = await processor.open(env.log.producer(client_id=env.instance))
        group, topics = group_of(self.name, env.topics.settings.prefix), (env.topics.lookups, env.topics.fills)
        together = HomeAssignor(env.topics.settings.other_partitions)
        joining = self.intake.join(env.log, group, env.instance, topics, fetch_max_wait_ms=IDLE_WAIT_MS, assignor=together)
        await self.serving.look()
        intake = await processor.open(joining)
        processor.spawn(
            self._outbox.run(producer),
            intake.run(),
            intake.run_commits(settings.commit_seconds),
            self.serving.run(),
            self._keys(),
            every(env.clock, LOOK_SECONDS, self.serving.look),
            *([] if self._meanings is None else [self._meanings.run()]),
        )

    def _dropped(self) -> None:
        self.serving.dropped()

    def _reasons(self) -> Iterator[str]:
        yield from kafka_silence(self.intake.polled_at, self._env.clock.monotonic())
        yield from self.intake.stopped
        yield from self.serving.tries.undone
        if self.serving.trouble is not None:
            yield self.serving.trouble
        if self._meanings is not None and self._meanings.trouble is not None:
            yield self._meanings.trouble
