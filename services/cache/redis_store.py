"""The store on Redis: one key an entry, which expires by itself, in an instance that evicts those that were used least lately.

`tutti:<prefix>cache1:<fingerprint>` → an entry; `tutti:<prefix>cache-barred` → hash fingerprint → until when, in Redis's own seconds. The
hash has no time to live, and the policy is `volatile-lru`: so what is barred is never evicted. A purge looks at all entries: an index
could be evicted, and then would name none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from services.cache.port import BARRED, FORM, CacheEntry, Finding, FoundEntry, Purge
from services.cache.settings import CacheSettings
from shared.errors import StoreAway
from shared.redis_client import ANYTHING, MANY, NUMBER, SCANNED, RedisStore, exactly, formed

_PURGE_SECONDS = 2.0
"""Of one exchange of a purge, which many others may be waiting behind."""
_SCANNED = 500
MOST_BARRED = 10_000
_BAR = """
local now = tonumber(redis.call('TIME')[1])
local barred = redis.call('HGETALL', KEYS[2])
for i = 1, #barred, 2 do if tonumber(barred[i + 1]) <= now then redis.call('HDEL', KEYS[2], barred[i]) end end
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then return -1 end
redis.call('HSET', KEYS[2], ARGV[1], now + 1 + tonumber(ARGV[2]))
return redis.call('DEL', KEYS[1])
"""
"""KEYS: entry, barred; ARGV: fingerprint, seconds, the most. Whole seconds are compared: at least for so long, and at most one more."""
_UNTIL = TypeAdapter(tuple[list[int | None], tuple[int, int]])
"""Until when each key is barred, and Redis's own time."""

_INFO, _NUMBERS = TypeAdapter(dict[str, Any]), TypeAdapter(dict[str, int])


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
        answer = await self.asked(pipeline.execute(raise_on_error=False), MANY, self._seconds)
        barred, values = _barred(answer[:2], keys), answer[2::2]
        found = [
            BARRED if bar else _entry(key, value, left) for key, bar, value, left in zip(keys, barred, values, answer[3::2], strict=True)
        ]
        odd = [self._entries + key for key, one, value in zip(keys, found, values, strict=True) if one is None and value is not None]
        if odd:
            await self.asked(self.redis.unlink(*odd), ANYTHING, self._seconds)
        return found

    async def keep(self, entries: Sequence[CacheEntry]) -> None:
        async with self.within(self._seconds):  # lookups wait behind it
            await self._keep(entries)

    async def _keep(self, entries: Sequence[CacheEntry]) -> None:
        keys = [entry.key for entry in entries]
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.hmget(self._barred, keys)
        pipeline.time()
        barred = _barred(await self.asked(pipeline.execute(), MANY), keys)
        pipeline = self.redis.pipeline(transaction=False)
        for entry, bar in zip(entries, barred, strict=True):
            if not bar:
                pipeline.set(self._entries + entry.key, entry.to_bytes(), px=max(1, round(entry.ttl * 1000)))
        await self.asked(pipeline.execute(), ANYTHING)

    async def purge(self, which: Purge, *, dry: bool) -> int:
        count, cursor = 0, 0
        while True:
            scan = self.redis.scan(cursor, match=_escaped(self._entries) + "*", count=_SCANNED)
            cursor, names = await self.asked(scan, SCANNED, _PURGE_SECONDS)
            values = exactly(await self.asked(self.redis.mget(names), MANY, _PURGE_SECONDS), len(names)) if names else []
            entries = ((name, _read(value)) for name, value in zip(names, values, strict=True))
            hit = {name: entry for name, entry in entries if entry is not None and which.holds(entry)}
            if hit and not dry:
                await self.asked(self.redis.unlink(*hit), ANYTHING, _PURGE_SECONDS)
                if self.purged is not None:
                    await self.purged(list(hit.values()))
            count += len(hit)
            if not cursor:
                return count

    async def bar(self, key: str, seconds: float) -> bool:
        bar = self._bar(keys=[self._entries + key, self._barred], args=[key, max(1, round(seconds)), MOST_BARRED])
        gone = await self.asked(bar, NUMBER, _PURGE_SECONDS)
        if gone < 0:
            raise StoreAway(f"more than {MOST_BARRED} entries are barred")
        return bool(gone)

    async def stats(self) -> Mapping[str, int]:
        info = await self.asked(self.redis.info(), _INFO, _PURGE_SECONDS)
        space = formed(info.get("db0", {}), _INFO)
        said = {
            "entries": space.get("keys", 0),
            "barred": await self.asked(self.redis.hlen(self._barred), NUMBER, _PURGE_SECONDS),
            "bytes": info.get("used_memory"),
            "most_bytes": info.get("maxmemory", 0),
            "evicted": info.get("evicted_keys"),
            "expired": info.get("expired_keys"),
        }
        return formed(said, _NUMBERS)

    async def ping(self) -> None:
        """With patience: it may be the first word to a store that is far, and tells whether it is there, not how fast."""
        await self.asked(self.redis.ping(), ANYTHING, _PURGE_SECONDS)


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


def _barred(answer: Any, keys: Sequence[str]) -> list[bool]:
    """Of each key, by Redis's own time. Raises StoreAway."""
    until, (now, _) = formed(answer, _UNTIL)
    return [(each or 0) > now for each in exactly(until, len(keys))]


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
