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
    remaining = due_at - now
    for tier, seconds in _LARGEST_FIRST:
        if seconds <= remaining:
            return tier
    return None


def build_delayed(topics: Topics, message: Message, due_at: float, now: float) -> Message:
    """`message`, wrapped so that the delay service sends it on at `due_at` (epoch seconds), or at once when that is past."""
    delayed = Delayed(
        topic=message.topic,
        partition=message.partition,
        due_at=due_at,
        key=message.key,
        value=message.value or b"",
        headers=message.headers,
    )
    tier = next_hop(due_at, now) or SMALLEST_TIER
    trace = headers.traceparent(message.headers)
    return Message(topics.delay(tier), delayed.to_bytes(), delayed.key, headers=headers.envelope("delayed", trace))
