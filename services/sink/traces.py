"""Traces: spans of jobs that have ended go to a collector (OTLP), beside the writing, and never hold it.

What waits is bounded: of a collector that is away or slow the newest jobs are left out, and counted. A crash between store and collector
loses some, a repeat sends the same spans again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence

from services.sink.port import USAGE, Store, Writes
from shared.clock import Clock
from shared.telemetry import logs, metrics
from shared.telemetry.otlp import Export, Span
from shared.telemetry.spans import place, spans_of

log = logs.get(__name__)
HELD_JOBS, AT_ONCE = 10_000, 100
PAUSE_SECONDS = 1.0
_LARGEST = 1 << 56
_Ended = tuple[str, str, int]
"""Home, job, life."""


class Traces:
    """`share`: of the traces that their callers have recorded, so many go out, by their ids: whole ones, and the same at everybody."""

    def __init__(self, store: Store, export: Export, share: float, clock: Clock) -> None:
        self._store, self._export, self._share, self._clock = store, export, share, clock
        self._ended: deque[_Ended] = deque()
        self._news = asyncio.Event()

    def written(self, writes: Writes) -> None:
        """The store has it."""
        for upsert in writes.upserts:
            if upsert.collection == USAGE and "settled" in upsert.fields:
                if len(self._ended) >= HELD_JOBS:
                    metrics.SINK_TRACES.labels("left_out").inc()
                    continue
                self._ended.append((upsert.fields["home"], upsert.fields["job"], upsert.fields["life"]))
                self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while taken := [self._ended.popleft() for _ in range(min(AT_ONCE, len(self._ended)))]:
                try:
                    spans = await self._spans(taken)
                    sent = not spans or await asyncio.to_thread(self._export, spans)
                except Exception as error:  # the store is away; a row is none that can be told
                    log.warning("traces_left_out", error=type(error).__name__)
                    sent = False
                metrics.SINK_TRACES.labels("sent" if sent else "left_out").inc(len(taken))
                if not sent:
                    await self._clock.sleep(PAUSE_SECONDS)

    async def _spans(self, taken: Sequence[_Ended]) -> list[Span]:
        by_home: dict[str, set[_Ended]] = defaultdict(set)
        for one in taken:
            by_home[one[0]].add(one)
        spans: list[Span] = []
        for home, ended in by_home.items():
            where = {"home": home, "job": {"$in": [job for _, job, _ in ended]}}
            for row in await self._store.find(USAGE, where, order=[("job", 1)], limit=0):
                if (home, row["job"], row["life"]) in ended and "settled" in row and self._wanted(row):
                    spans += spans_of(row)
        return spans

    def _wanted(self, row: dict[str, object]) -> bool:
        lies = place(row)
        return lies.sampled and int(lies.trace[-14:], 16) < self._share * _LARGEST
