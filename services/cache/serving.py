"""Serving: what the windows hold is answered in one round: fills first, then all lookups by one call of the store.

Nothing here waits longer than a few calls of the store may take. What the store cannot say is a miss; what it cannot take is not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Literal

from services.cache.flights import Flights
from services.cache.handlers import CacheRecord, missed, read_asked, served
from services.cache.port import BARRED, CacheEntry, CacheStore, Finding, FoundEntry
from services.cache.semantic.meanings import Meanings
from services.cache.settings import CacheSettings
from shared.clock import Clock
from shared.contracts.cache import CacheAbandoned, CacheFill, CacheLookup
from shared.errors import StoreAway
from shared.kafka.port import Message
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.tries import Tries
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

_FAILURES = 3
"""In a row, and the store is left alone for a while."""


class Serving:
    """`wake`: set when records have come."""

    def __init__(
        self,
        intake: Intake,
        outbox: Outbox,
        store: CacheStore,
        meanings: Meanings | None,
        *,
        topics: Topics,
        settings: CacheSettings,
        clock: Clock,
        wake: asyncio.Event,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._intake, self._outbox, self._store, self._meanings, self._topics = intake, outbox, store, meanings, topics
        self._settings, self._clock, self._wake, self._spawn = settings, clock, wake, spawn
        self._flights: dict[int, Flights] = {}
        """By partition number; dropped with the partition."""
        self._failures, self._asks_from = 0, 0.0
        self._turn = asyncio.Lock()
        """Between a flight's landing and its answer in the store nobody is told that there is none."""
        self.tries = Tries()
        self.trouble: str | None = None
        """Why nothing is found, as far as the store goes."""

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            with self.tries.chore("serving"):
                while not self._outbox.full and (taken := list(self._intake.take(partial(read_asked, topics=self._topics)))):
                    async with self._turn:
                        await self._round(taken)
                    self._intake.relieve()

    def dropped(self) -> None:
        """Windows were lost: who waits there is another instance's, or comes back by itself."""
        held = {partition.partition for partition in self._intake.windows}
        self._flights = {number: flights for number, flights in self._flights.items() if number in held}

    async def look(self) -> None:
        """Nothing may be asked for long: is the store there?"""
        if self._clock.monotonic() >= self._asks_from:
            try:
                await self._store.ping()
            except StoreAway as error:
                self._failed(error)
            else:
                self._succeeded()

    async def _round(self, taken: Sequence[CacheRecord]) -> None:
        now = self._clock.monotonic()
        fills = [one.said for one in taken if isinstance(one.said, CacheFill)]
        lookups = [(one, one.said) for one in taken if isinstance(one.said, CacheLookup)]
        for one in taken:
            self._outbox.post(self._released(one, now))
        await self._keep(fills)
        found = await self._find([lookup for _, lookup in lookups])
        unsure = []
        for (one, lookup), finding in zip(lookups, found, strict=True):
            if not lookup.exact or (finding is None and lookup.meaning is not None and self._meanings is not None):
                unsure.append((one, lookup))
            else:
                self._tell(one, lookup, finding)
        if unsure:  # takes longer: nobody else waits for that, and so long their records are not committed past
            self._spawn(self._by_meaning(unsure))
        later = {id(one) for one, _ in unsure}
        for one in taken:
            if id(one) not in later:
                one.finish()

    def _released(self, one: CacheRecord, now: float) -> list[Message]:
        """Who waited for this fill is served at once, from what is in hand; of an abandoned step the next one leads."""
        said, flights = one.said, self._flights_of(one.window.partition.partition)
        if isinstance(said, CacheFill):
            fresh = FoundEntry(CacheEntry.of(said), 0.0)
            return [self._hit(lookup, fresh) for lookup in flights.landed(said.key)]
        if isinstance(said, CacheAbandoned):
            leads = flights.abandoned(said.key, said.tenant, (said.job, said.step), now)
            return [] if leads is None else [missed(leads, None, self._topics)]
        return []

    def _tell(self, one: CacheRecord, lookup: CacheLookup, finding: Finding, similarity: float | None = None) -> None:
        if isinstance(finding, FoundEntry):
            self._outbox.put(self._hit(lookup, finding, similarity))
            return
        follow = None
        if finding is not BARRED:
            follow = self._flights_of(one.window.partition.partition).missed(lookup, self._clock.monotonic())
        metrics.CACHE_LOOKUPS.labels("barred" if finding is BARRED else "miss" if follow is None else "follow").inc()
        self._outbox.put(missed(lookup, follow, self._topics))

    def _hit(self, lookup: CacheLookup, found: FoundEntry, similarity: float | None = None) -> Message:
        kind: Literal["exact", "semantic"] = "exact" if similarity is None else "semantic"
        metrics.CACHE_LOOKUPS.labels(kind).inc()
        metrics.CACHE_TOKENS_SAVED.inc(found.entry.usage.callers_tokens)
        return served(lookup, found.answer(kind, similarity), self._topics)

    def _flights_of(self, number: int) -> Flights:
        flights = self._flights.get(number)
        if flights is None:
            flights = self._flights[number] = Flights(seconds=self._settings.flight_seconds, most=self._settings.flights)
        return flights

    # The store

    async def _find(self, lookups: Sequence[CacheLookup]) -> list[Finding]:
        """Of each what may be served to it."""
        asked = {lookup.key for lookup in lookups if lookup.exact}
        if not asked or not self._may_ask():
            return [None] * len(lookups)
        keys = list(asked)
        with metrics.CACHE_STORE_SECONDS.labels("find").time():
            try:
                found = dict(zip(keys, await self._store.find(keys), strict=True))
            except StoreAway as error:
                self._failed(error)
                return [None] * len(lookups)
        self._succeeded()
        return [_fitting(lookup, found.get(lookup.key)) for lookup in lookups]

    async def _keep(self, fills: Sequence[CacheFill]) -> None:
        if not fills:
            return
        entries, kept = [CacheEntry.of(fill) for fill in fills], False
        if self._may_ask():
            with metrics.CACHE_STORE_SECONDS.labels("keep").time():
                try:
                    await self._store.keep(entries)
                except StoreAway as error:
                    self._failed(error)
                else:
                    self._succeeded()
                    kept = True
        metrics.CACHE_FILLS.labels("kept" if kept else "away").inc(len(fills))
        if kept and self._meanings is not None:
            await self._meanings.learn([entry for entry in entries if entry.meaning is not None])

    async def _by_meaning(self, unsure: Sequence[tuple[CacheRecord, CacheLookup]]) -> None:
        """The same answer, not only one alike, may have come meanwhile."""
        lookups = [lookup for _, lookup in unsure]
        near = [None] * len(unsure) if self._meanings is None else await self._meanings.near(lookups)
        async with self._turn:
            again = iter(await self._find([lookup for lookup, found in zip(lookups, near, strict=True) if found is None]))
            for (one, lookup), found in zip(unsure, near, strict=True):
                self._tell(one, lookup, *(found or (next(again),)))
                one.finish()

    def _may_ask(self) -> bool:
        return self._clock.monotonic() >= self._asks_from

    def _succeeded(self) -> None:
        self._failures, self.trouble = 0, None

    def _failed(self, error: StoreAway) -> None:
        """After a few failures nobody waits for it any more; one call at a time finds out whether it is back."""
        metrics.CACHE_STORE_ERRORS.inc()
        self._failures += 1
        if self.trouble is None:
            log.warning("cache_store_away", reason=error.message)
        self.trouble = error.message
        if self._failures >= _FAILURES:
            self._asks_from = self._clock.monotonic() + self._settings.store_pause_seconds


def _fitting(lookup: CacheLookup, finding: Finding) -> Finding:
    """What the lookup may be served of it. The key says all of this already, but an entry is only a record that somebody has written."""
    if not isinstance(finding, FoundEntry):
        return finding
    too_old = lookup.max_age is not None and finding.age_seconds > lookup.max_age
    return None if too_old or finding.entry.key != lookup.key else finding
