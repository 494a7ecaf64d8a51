"""The sink's process: reads what happened, writes it to the store, counts it, and answers who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from services.sink.gauges import Gauges
from services.sink.mongo import MongoStore, NoStore
from services.sink.page.looking import Watching
from services.sink.page.routes import Page
from services.sink.port import Store
from services.sink.query_api import build_api
from services.sink.settings import SinkSettings
from services.sink.traces import Traces
from services.sink.writing import Writer
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.tail import IDLE_WAIT_MS
from shared.processing.window import WindowBounds
from shared.service import Environment, kafka_silence
from shared.service.answering import keys_of
from shared.service.processor import Processor
from shared.services import group_of
from shared.telemetry.otlp import Export, otlp


def build(environment: Environment, settings: SinkSettings | None = None, store: Store | None = None) -> UsageSink:
    """The sink of one process; settings come from its environment unless given."""
    settings = settings or SinkSettings()
    if store is None:
        store = MongoStore(settings.store, settings.database, settings.store_timeout_seconds) if settings.store else NoStore()
    return UsageSink(environment, settings, store, otlp(settings.traces, settings.trace_timeout_seconds) if settings.traces else None)


class UsageSink:
    """Implements `shared.service.Service` and `shared.service.Answering`."""

    name = "sink"

    def __init__(self, environment: Environment, settings: SinkSettings, store: Store, export: Export | None = None) -> None:
        self._env, self._settings, self._store = environment, settings, store
        clock, topics, wake = environment.clock, environment.topics, asyncio.Event()
        records = settings.batch_records
        self.intake = Intake(
            Outbox(clock, self.name, topics),  # nothing is sent: what is no message is passed over
            service=self.name,
            bounds=WindowBounds(open=records, span=records, records=2 * records, bytes=settings.held_bytes),
            cap=environment.settings.dead_letter_cap,
            clock=clock,
            arrived=wake.set,
        )
        self._traces = Traces(store, export, settings.traced_share, clock) if export is not None else None
        kept_in = (self.intake, store, Gauges(settings.labels), self._traces)
        self.writer = Writer(*kept_in, topics=topics, settings=settings, clock=clock, wake=wake)
        (keys, self._keys), self.watching = (
            keys_of(environment, settings.keys_file, self.name, store.erase),
            Watching(environment, settings),
        )
        page = Page(environment, settings, store, self.watching, keys=keys)
        self._api = build_api(store, keys, clock, queries=settings.queries, besides=page.routes())
        self._processor = Processor(self._connect, reasons=self._reasons, drain=self._drain)
        self._processor.closes(store)
        self.run, self.readiness = self._processor.run, self._processor.readiness

    def asgi(self) -> Any:
        """What is asked of it over HTTP."""
        return self._api

    async def _connect(self) -> None:
        env, processor = self._env, self._processor
        group = group_of(self.name, env.topics.settings.prefix)
        topics = (env.topics.job_events, env.topics.dead_letters, env.topics.nodes, env.topics.acts)
        intake = await processor.open(self.intake.join(env.log, group, env.instance, topics, fetch_max_wait_ms=IDLE_WAIT_MS))
        processor.spawn(intake.run(), intake.run_commits(self._settings.commit_seconds), self.writer.run())
        processor.spawn(self._keys(), self.watching.run())
        if self._traces is not None:
            processor.spawn(self._traces.run())

    async def _drain(self) -> None:
        await self.watching.drain()
        await self.intake.drain()

    def _reasons(self) -> Iterator[str]:
        yield from kafka_silence(self.intake.polled_at, self._env.clock.monotonic())
        yield from self.intake.stopped
        yield from self.writer.tries.undone
        if self.writer.trouble is not None:
            yield self.writer.trouble
