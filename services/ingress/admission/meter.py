"""Meter: requests and tokens of each key, charged before a job is queued and settled when its result tells what it used.

Tokens are estimated before. What an instance that dies has not settled stays as estimated. When the shared buckets do not answer,
each instance goes on with buckets of its own: a key may then use its limit once per instance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from services.ingress.admission.bucket_store import BucketStore, Debit, Level, MemoryBuckets
from services.ingress.problems import Problem, Refused
from services.ingress.replies.ends import Ends
from shared.access import Client, Rate
from shared.clock import Clock
from shared.contracts.job import Job
from shared.contracts.result import Result
from shared.errors import StoreAway
from shared.estimates import likely_tokens
from shared.patterns import Patterns
from shared.telemetry import metrics

REQUESTS, TOKENS = "requests", "tokens"

Headers = list[tuple[bytes, bytes]]


class Charge(NamedTuple):
    """What was taken for one job, and the headers that tell what is left."""

    client: Client
    tokens: int = 0
    headers: Sequence[tuple[bytes, bytes]] = ()


def estimate(job: Job, patterns: Patterns, answer_tokens: int) -> int:
    """Tokens that a job may use: its texts' and its longest answer's, for each call that is likely. Raises as `Patterns.read`."""
    pattern, ask = patterns.read(job)
    texts = [job.prompt or "", job.system or "", *(message.content for message in job.messages or ()), *(job.texts or ())]
    prompt = likely_tokens(sum(map(len, texts))) + 1
    if job.texts is not None:
        return prompt
    answer = job.options.max_tokens or answer_tokens
    return prompt + sum(likely_tokens(more) + answer for more in pattern.likely_calls(job, ask))


def used(result: Result) -> int:
    """Tokens of an ended job. What retries wasted is not the caller's; what his own cancel cut off is."""
    return result.usage.callers_tokens


class Meter:
    """One per instance. `shared` None: this instance's own buckets."""

    def __init__(self, clock: Clock, ends: Ends, shared: BucketStore | None, *, settle_seconds: float) -> None:
        self._clock = clock
        self._ends = ends
        self._own = MemoryBuckets(clock)
        self._shared = shared
        self._settle_seconds = settle_seconds
        self._differences: dict[str, tuple[Rate, float]] = {}

    async def charge(self, client: Client, tokens: int) -> Charge:
        """Take a request and `tokens`. Raises Refused: 429 with when to come again, 413 when no waiting would help."""
        asks = _asks(client, tokens)
        if not asks:
            return Charge(client)
        for kind, each in asks.items():
            if each.amount > each.rate.burst:
                raise Refused(_never(kind, each))
        levels = dict(zip(asks, await self._take(list(asks.values())), strict=True))
        headers = _headers(asks, levels)
        wait = max(level.wait_seconds for level in levels.values())
        if wait > 0:
            metrics.RATE_LIMITED.labels(max(levels, key=lambda kind: levels[kind].wait_seconds)).inc()
            raise Refused(_limited(asks, levels, wait, headers))
        return Charge(client, tokens, headers)

    async def _take(self, asks: Sequence[Debit]) -> list[Level]:
        if self._shared is not None:
            try:
                return await self._shared.take(asks)
            except StoreAway:
                metrics.BUCKET_STORE_ERRORS.inc()
        return await self._own.take(asks)

    def watch(self, charge: Charge, job: str) -> None:
        """Settle the charge when the job's end is read."""
        if charge.client.tokens is not None:
            self._ends.add(job, self._on_end(charge))

    def _on_end(self, charge: Charge) -> Callable[[Result], None]:
        def settle(result: Result) -> None:
            self.correct(charge, used(result))

        return settle

    def correct(self, charge: Charge, used_tokens: int) -> None:
        """What was charged in tokens was `used_tokens` in truth."""
        if charge.client.tokens is None or used_tokens == charge.tokens:
            return
        bucket = _bucket(charge.client, TOKENS)
        rate, before = self._differences.get(bucket, (charge.client.tokens, 0.0))
        self._differences[bucket] = rate, before + used_tokens - charge.tokens

    async def settle_forever(self) -> None:
        """Write corrections, those of one key together."""
        while True:
            await self._clock.sleep(self._settle_seconds)
            if self._differences:
                differences, self._differences = self._differences, {}
                await self._settle(differences)

    async def _settle(self, differences: dict[str, tuple[Rate, float]]) -> None:
        if self._shared is not None:
            try:
                await self._shared.settle(differences)
            except StoreAway:
                metrics.BUCKET_STORE_ERRORS.inc()
            else:
                return
        await self._own.settle(differences)

    async def close(self) -> None:
        """Write what is left. What cannot be written stays charged as estimated."""
        if self._shared is not None:
            await self._settle(self._differences)
            await self._shared.close()


def _asks(client: Client, tokens: int) -> dict[str, Debit]:
    asks = {}
    if client.requests is not None:
        asks[REQUESTS] = Debit(_bucket(client, REQUESTS), client.requests, 1)
    if client.tokens is not None:
        asks[TOKENS] = Debit(_bucket(client, TOKENS), client.tokens, tokens)
    return asks


def _bucket(client: Client, kind: str) -> str:
    """In braces what a Redis cluster keeps together."""
    return f"{{{client.name}}}:{kind}"


def _never(kind: str, each: Debit) -> Problem:
    message = f"the request may use {each.amount:.0f} {kind}; this key's limit holds {each.rate.burst:.0f} at most"
    return Problem(413, "larger_than_limit", message, "max_tokens" if kind == TOKENS else None)


def _limited(asks: dict[str, Debit], levels: dict[str, Level], wait: float, headers: Headers) -> Problem:
    kind = max(levels, key=lambda name: levels[name].wait_seconds)
    rate, amount = asks[kind].rate, asks[kind].amount
    message = (
        f"rate limit reached for {kind} per minute: limit {rate.per_second * 60:.0f}, "
        f"left {levels[kind].remaining(rate)}, requested {amount:.0f}; try again in {wait:.3f} s"
    )
    more = [*headers, (b"retry-after-ms", b"%d" % math.ceil(wait * 1000))]
    return Problem(429, "rate_limit_exceeded", message, None, wait, headers=tuple(more))


def _headers(asks: dict[str, Debit], levels: dict[str, Level]) -> Headers:
    """As OpenAI's clients know them: what the bucket holds, what is left, until when it is full again."""
    found: Headers = []
    for kind, each in asks.items():
        level, name = levels[kind], kind.encode()
        found.append((b"x-ratelimit-limit-" + name, b"%d" % each.rate.burst))
        found.append((b"x-ratelimit-remaining-" + name, b"%d" % level.remaining(each.rate)))
        found.append((b"x-ratelimit-reset-" + name, duration(level.full_seconds).encode()))
    return found


def duration(seconds: float) -> str:
    """`12ms`, `1.5s`, `6m0s`, `1h0m0s`: rounded up to the millisecond."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
