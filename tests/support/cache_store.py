"""MemoryCache: the cache's store in memory, with the promises of `services/cache/port.py` and no more; and what can go wrong with it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from random import Random

from services.cache.port import BARRED, CacheEntry, Finding, FoundEntry, Purge
from shared.errors import StoreAway


class MemoryCache:
    """Entries by key, each as bytes. A call takes a moment. `fails`: how likely it is that one fails, perhaps when it is done; `slow`: that
    it takes as long as it may; `forgets`: that an entry is evicted when it is looked for. `away`: nothing is answered.
    """

    def __init__(self, random: Random | None = None, *, most: int = 10_000, patience_seconds: float = 0.015) -> None:
        self._random, self._most, self._patience = random or Random(1), most, patience_seconds
        self.fails = self.slow = self.forgets = 0.0
        self.away = False
        self.entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        """Key → entry, when it was kept; that used least lately first."""
        self.barred: dict[str, float] = {}
        self.calls = 0

    async def find(self, keys: Sequence[str]) -> list[Finding]:
        await self._moment()
        return [self._one(key) for key in keys]

    def _one(self, key: str) -> Finding:
        now = asyncio.get_running_loop().time()
        if self.barred.get(key, 0.0) > now:
            return BARRED
        value, kept_at = self.entries.get(key, (b"", 0.0))
        if not value:
            return None
        if self._random.random() < self.forgets:
            del self.entries[key]
            return None
        entry = CacheEntry.model_validate_json(value)
        if now - kept_at >= entry.ttl:
            del self.entries[key]
            return None
        self.entries.move_to_end(key)
        return FoundEntry(entry, now - kept_at)

    async def keep(self, entries: Sequence[CacheEntry]) -> None:
        """Two calls, as in Redis: what is barred, then the rest."""
        await self._moment()
        await self._moment()
        now = asyncio.get_running_loop().time()
        for entry in entries:
            if self.barred.get(entry.key, 0.0) <= now:
                self.entries[entry.key] = (entry.to_bytes(), now)
                self.entries.move_to_end(entry.key)
        while len(self.entries) > self._most:
            self.entries.popitem(last=False)
        self._late()

    async def purge(self, which: Purge, *, dry: bool) -> int:
        await self._moment()
        hit = [key for key, (value, _) in self.entries.items() if which.holds(CacheEntry.model_validate_json(value))]
        for key in () if dry else hit:
            del self.entries[key]
        return len(hit)

    async def bar(self, key: str, seconds: float) -> bool:
        await self._moment()
        self.barred[key] = asyncio.get_running_loop().time() + seconds
        return self.entries.pop(key, None) is not None

    async def stats(self) -> Mapping[str, int]:
        await self._moment()
        return {"entries": len(self.entries), "barred": len(self.barred)}

    async def ping(self) -> None:
        await self._moment()

    async def close(self) -> None:
        return None

    async def _moment(self) -> None:
        self.calls += 1
        if self.away or self._random.random() < self.slow:
            await asyncio.sleep(self._patience)
            raise StoreAway("the store has not answered in time")
        if self._random.random() < self.fails / 2:
            raise StoreAway("the store is broken")
        await asyncio.sleep(0.0005)

    def _late(self) -> None:
        """It is done, and nobody learns of it."""
        if self._random.random() < self.fails / 2:
            raise StoreAway("the store's word is lost")
