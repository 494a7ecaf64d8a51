"""The way of a record through the delay tiers: which tier next, and how a record is wrapped for it. Pure.

A record hops through the largest tier that still fits (2 h 07 m = 1h, 1h, 5s...), so that inside one tier everything waits equally
long and a partition is ordered by due time. What is left when not even the smallest tier fits is held in memory by the delay service.
"""

from __future__ import annotations

from shared.contracts import headers
from shared.contracts.delayed import Delayed
from shared.kafka.port import Message
from shared.topics import DELAY_TIERS, Topics

TIER_SECONDS = dict(DELAY_TIERS)
SMALLEST_TIER = DELAY_TIERS[0][0]
_LARGEST_FIRST = tuple(reversed(DELAY_TIERS))


def next_hop(due_at: float, now: float) -> str | None:
    """The largest tier that ends at or before `due_at` (both epoch seconds); None when less than the smallest tier is left."""
    return tier_within(due_at - now)


def tier_within(remaining: float) -> str | None:
    """The largest tier of at most `remaining` seconds; None when that is less than the smallest."""
    for tier, seconds in _LARGEST_FIRST:
        if seconds <= remaining:
            return tier
    return None


def build_delayed(topics: Topics, message: Message, due_at: float, now: float) -> Message:
    """`message`, wrapped so that the delay service sends it on at `due_at` (epoch seconds, of a user), or at once when that is past."""
    return _wrapped(topics, message, next_hop(due_at, now), due_at=due_at)


def build_waiting(topics: Topics, message: Message, seconds: float) -> Message:
    """`message`, wrapped so that the delay service sends it on `seconds` after it has read it, with the time that was waited (`waited`).

    A duration of ours never becomes an instant: with clocks 20 s apart a wait of 10 s would be none, and yet count as one.
    """
    return _wrapped(topics, message, tier_within(seconds), seconds=seconds)


def _wrapped(topics: Topics, message: Message, tier: str | None, *, due_at: float | None = None, seconds: float | None = None) -> Message:
    delayed = Delayed(
        topic=message.topic,
        partition=message.partition,
        due_at=due_at,
        seconds=seconds,
        key=message.key,
        value=message.value or b"",
        headers=message.headers,
    )
    trace = headers.Envelope(message.headers).traceparent()
    head = headers.envelope("delayed", trace)
    return Message(topics.delay(tier or SMALLEST_TIER), delayed.to_bytes(), delayed.key, headers=head, tenant=message.tenant)
