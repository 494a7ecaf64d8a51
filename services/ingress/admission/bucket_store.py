"""Where buckets are kept: in Redis, shared by all instances, or in this process. Both do the arithmetic of `buckets.py`.

Redis' own clock is the time of shared buckets, so no two machines' clocks are compared. A key lives until its bucket is full.

Token bucket arithmetic. Pure; the Redis script in `bucket_store.py` is the same three lines in Lua.

A bucket is one number: the moment at which it is full again if nothing more is taken (a bucket that was never used, or was full long
ago, has none). What is in it at `now` is `burst - (full_at - now) * per_second`. So nothing has to be refilled, and a stored bucket
may be forgotten as soon as it is full (generic cell rate algorithm, ITU-T I.371, with the bucket's words).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from pydantic import FiniteFloat, TypeAdapter

from services.ingress.settings import IngressSettings
from shared.access import Rate
from shared.clock import Clock
from shared.redis_client import ANYTHING, RedisStore, exactly

EPSILON_SECONDS = 1e-6
"""What rounding may take; a caller who waits exactly as long as he was told must not be refused."""

DEBT_SECONDS = 86_400.0
"""A job that used a hundred times its estimate is paid for in full, unless that takes longer than a day: then the rest is forgiven."""


def most_owed_seconds(rate: Rate) -> float:
    """The deepest debt: a bucket that has used so much more than was taken is full again after this."""
    return rate.fill_seconds + max(rate.fill_seconds, DEBT_SECONDS)


class Level(NamedTuple):
    """A bucket after it was asked. `wait_seconds`: 0 when it gave; else exactly when it would."""

    full_seconds: float
    """Until it is full again."""
    wait_seconds: float

    def remaining(self, rate: Rate) -> int:
        """What could be taken now."""
        return max(0, math.floor(rate.burst - self.full_seconds * rate.per_second + EPSILON_SECONDS))


def ask(rate: Rate, full_at: float, amount: float, now: float) -> Level:
    """What comes of taking `amount` (at most the burst). When it gives, the new `full_at` is now + full_seconds."""
    assert 0 <= amount <= rate.burst, "more than the bucket holds is never given"
    before = max(0.0, full_at - now)
    after = before + amount / rate.per_second
    wait = after - rate.fill_seconds
    return Level(after, 0.0) if wait <= EPSILON_SECONDS else Level(before, wait)


def settled(rate: Rate, full_at: float, difference: float, now: float) -> float:
    """The new `full_at` when `difference` more (or, negative, less) was used than was taken. Debt is bounded."""
    owed = max(0.0, full_at - now) + difference / rate.per_second
    return now + min(max(0.0, owed), most_owed_seconds(rate))


_TAKE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local after, answer, given = {}, {}, true
for i, key in ipairs(KEYS) do
  local rate, burst, amount = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local before = math.max(0, tonumber(redis.call('GET', key) or 0) - now)
  after[i] = before + amount / rate
  local wait = after[i] - burst / rate
  if wait > 1e-6 then given = false else wait = 0 end
  answer[i] = {before, wait}
end
local told = {}
for i, key in ipairs(KEYS) do
  if given then
    redis.call('SET', key, string.format('%.6f', now + after[i]), 'PX', math.ceil(after[i] * 1000) + 1)
    answer[i][1] = after[i]
  end
  told[2 * i - 1], told[2 * i] = tostring(answer[i][1]), tostring(answer[i][2])
end
return told
"""
"""All buckets give, or none does. KEYS: buckets; ARGV: rate, burst, amount of each; returns full_seconds, wait_seconds of each."""
_LEVELS = TypeAdapter(list[FiniteFloat])

_SETTLE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local rate, difference, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local owed = math.max(0, tonumber(redis.call('GET', KEYS[1]) or 0) - now) + difference / rate
owed = math.min(math.max(0, owed), most)
if owed <= 0 then redis.call('DEL', KEYS[1]) return end
redis.call('SET', KEYS[1], string.format('%.6f', now + owed), 'PX', math.ceil(owed * 1000) + 1)
"""


class Debit(NamedTuple):
    """Take `amount` from the bucket of this name."""

    bucket: str
    rate: Rate
    amount: float


class BucketStore(Protocol):
    """Raises StoreAway, within the timeout."""

    async def take(self, asks: Sequence[Debit]) -> list[Level]:
        """From all, or from none when one does not give."""
        ...

    async def settle(self, differences: Mapping[str, tuple[Rate, float]]) -> None:
        """Correct what was taken by what was used: bucket → its rate and the difference."""
        ...

    async def close(self) -> None: ...


class MemoryBuckets:
    """Of this instance alone. As many buckets as there are keys with limits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    async def take(self, asks: Sequence[Debit]) -> list[Level]:
        now = self._clock.monotonic()
        levels = [ask(each.rate, self._full_at.get(each.bucket, now), each.amount, now) for each in asks]
        if any(level.wait_seconds for level in levels):
            return [
                ask(each.rate, self._full_at.get(each.bucket, now), 0, now)._replace(wait_seconds=level.wait_seconds)
                for each, level in zip(asks, levels, strict=True)
            ]
        self._full_at.update((each.bucket, now + level.full_seconds) for each, level in zip(asks, levels, strict=True))
        return levels

    async def settle(self, differences: Mapping[str, tuple[Rate, float]]) -> None:
        now = self._clock.monotonic()
        for bucket, (rate, difference) in differences.items():
            self._full_at[bucket] = settled(rate, self._full_at.get(bucket, now), difference, now)

    async def close(self) -> None:
        """Nothing is held."""


class _RedisBuckets(RedisStore):
    """Keys: `tutti:<prefix>bucket:{<name>}` → full_at."""

    def __init__(self, url: str, *, prefix: str, connections: int, timeout_seconds: float) -> None:
        super().__init__(url, connections=connections, timeout_seconds=timeout_seconds)
        self._prefix = f"tutti:{prefix}bucket:"
        self._take = self.redis.register_script(_TAKE)
        self._settle = self.redis.register_script(_SETTLE)

    async def take(self, asks: Sequence[Debit]) -> list[Level]:
        arguments = [value for each in asks for value in (repr(each.rate.per_second), repr(each.rate.burst), repr(each.amount))]
        call = self._take(keys=[self._prefix + each.bucket for each in asks], args=arguments)
        found = exactly(await self.asked(call, _LEVELS), 2 * len(asks))
        return [Level(full, wait) for full, wait in zip(found[::2], found[1::2], strict=True)]

    async def settle(self, differences: Mapping[str, tuple[Rate, float]]) -> None:
        for bucket, (rate, difference) in differences.items():
            arguments = [repr(rate.per_second), repr(difference), repr(most_owed_seconds(rate))]
            await self.asked(self._settle(keys=[self._prefix + bucket], args=arguments), ANYTHING)


def bucket_store(settings: IngressSettings, prefix: str) -> BucketStore | None:
    """The buckets that all instances share; None: each has its own."""
    if not (settings.redis_url and settings.keys_file):
        return None
    return _RedisBuckets(
        settings.redis_url, prefix=prefix, connections=settings.redis_connections, timeout_seconds=settings.redis_timeout_seconds
    )
