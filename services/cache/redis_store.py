"""The store on Redis: one key an entry, which expires by itself, in an instance that evicts those that were used least lately.

`tutti:<prefix>cache1:<fingerprint>` → an entry; `tutti:<prefix>cache-barred` → hash fingerprint → until when, in Redis's own seconds. The
hash has no time to live, and the policy is `volatile-lru`: so what is barred is never evicted. A purge looks at all entries: an index
could be evicted, and then would name none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from services.cache.port import BARRED, FORM, CacheEntry, Finding, FoundEntry, Purge
from services.cache.settings import CacheSettings
from shared.errors import StoreAway
from shared.redis_client import RedisStore

_PURGE_SECONDS = 2.0
"""Of one call of a purge, which many others may be waiting behind."""
_SCANNED = 500
MOST_BARRED = 10_000
_BAR = """
local now = tonumber(redis.call('TIME')[1])
local barred = redis.call('HGETALL', KEYS[2])
for i = 1, #barred, 2 do if tonumber(barred[i + 1]) <= now then redis.call('HDEL', KEYS[2], barred[i]) end end
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then return -1 end
redis.call('HSET', KEYS[2], ARGV[1], now + tonumber(ARGV[2]))
return redis.call('DEL', KEYS[1])
"""
"""KEYS: entry, barred; ARGV: fingerprint, seconds, the most."""


class RedisCache(RedisStore):
    """Implements `port.CacheStore`."""

    def __init__(self, settings: CacheSettings, prefix: str) -> None:
        self._seconds = settings.store_timeout_seconds
        super().__init__(settings.store, connections=settings.store_connections, timeout_seconds=_PURGE_SECONDS)
        self._entries, self._barred = f"tutti:{prefix}cache{FORM}:", f"tutti:{prefix}cache-barred"
        self.purged: Callable[[Sequence[CacheEntry]], Awaitable[None]] | None = None
        """Who else keeps something of entries, and is to forget it."""
        self._bar = self.redis.register_script(_BAR)

    async def find(self, keys: Sequence[str]) -> list[Finding]:
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.hmget(self._barred, keys)
        pipeline.time()
        for key in keys:
            pipeline.get(self._entries + key)
            pipeline.pttl(self._entries + key)
        async with self.answering(self._seconds):
            barred, (now, _), *rest = await pipeline.execute(raise_on_error=False)
            found = [
                BARRED if _until(until) > now else _entry(key, value, left)
                for key, until, value, left in zip(keys, barred, rest[::2], rest[1::2], strict=True)
            ]
        if odd := [
            self._entries + key for key, one, value in zip(keys, found, rest[::2], strict=True) if one is None and value is not None
        ]:
            async with self.answering(self._seconds):
                await self.redis.unlink(*odd)
        return found

    async def keep(self, entries: Sequence[CacheEntry]) -> None:
        async with self.answering(self._seconds):
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.hmget(self._barred, [entry.key for entry in entries])
            pipeline.time()
            barred, (now, _) = await pipeline.execute()
            pipeline = self.redis.pipeline(transaction=False)
            for entry, until in zip(entries, barred, strict=True):
                if _until(until) <= now:
                    pipeline.set(self._entries + entry.key, entry.to_bytes(), px=max(1, round(entry.ttl * 1000)))
            await pipeline.execute()

    async def purge(self, which: Purge, *, dry: bool) -> int:
        count, cursor = 0, 0
        while True:
            async with self.answering(_PURGE_SECONDS):
                cursor, names = await self.redis.scan(cursor, match=_escaped(self._entries) + "*", count=_SCANNED)
                values = await self.redis.mget(names) if names else []
                hit = {
                    name: entry
                    for name, value in zip(names, values, strict=True)
                    if (entry := _read(value)) is not None and which.holds(entry)
                }
                if hit and not dry:
                    await self.redis.unlink(*hit)
                    if self.purged is not None:
                        await self.purged(list(hit.values()))
            count += len(hit)
            if not cursor:
                return count

    async def bar(self, key: str, seconds: float) -> bool:
        async with self.answering(_PURGE_SECONDS):
            gone = await self._bar(keys=[self._entries + key, self._barred], args=[key, max(1, round(seconds)), MOST_BARRED])
        if int(gone) < 0:
            raise StoreAway(f"more than {MOST_BARRED} entries are barred")
        return bool(gone)

    async def stats(self) -> Mapping[str, int]:
        async with self.answering(_PURGE_SECONDS):
            info = await self.redis.info()
            space = info.get("db0", {})
            return {
                "entries": int(space.get("keys", 0)),
                "barred": int(await self.redis.hlen(self._barred)),
                "bytes": int(info["used_memory"]),
                "most_bytes": int(info.get("maxmemory", 0)),
                "evicted": int(info["evicted_keys"]),
                "expired": int(info["expired_keys"]),
            }

    async def ping(self) -> None:
        """With patience: it may be the first word to a store that is far, and tells whether it is there, not how fast."""
        async with self.answering(_PURGE_SECONDS):
            await self.redis.ping()


class NothingKept:
    """Where no store is named."""

    async def find(self, keys: Sequence[str]) -> list[Finding]:
        return [None] * len(keys)

    async def keep(self, entries: Sequence[CacheEntry]) -> None:
        return None

    async def purge(self, which: Purge, *, dry: bool) -> int:
        return 0

    async def bar(self, key: str, seconds: float) -> bool:
        raise StoreAway("no store is named (TUTTI_CACHE__STORE): nothing is kept")

    async def stats(self) -> Mapping[str, int]:
        return {}

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


def _until(value: Any) -> int:
    return 0 if value is None else int(value)


def _read(value: Any) -> CacheEntry | None:
    """None for what is no entry of this form."""
    if not isinstance(value, bytes):
        return None
    try:
        return CacheEntry.model_validate_json(value)
    except ValidationError:
        return None


def _entry(key: str, value: Any, left_ms: Any) -> Finding:
    entry = _read(value)
    if entry is None or entry.key != key or not isinstance(left_ms, int) or left_ms < 0:
        return None
    return FoundEntry(entry, max(0.0, entry.ttl - left_ms / 1000))


def _escaped(text: str) -> str:
    """As a glob that matches the text alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)
