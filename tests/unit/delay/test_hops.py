"""Laws of the way through the tiers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.delayed import Delayed
from shared.kafka.port import Message
from shared.processing.delays import SMALLEST_TIER, TIER_SECONDS, build_delayed, next_hop
from shared.topics import Topics

NOW = 1_700_000_000.0
delays = st.floats(-10.0, 3 * 86_400.0)


@given(delays)
def test_the_hop_is_the_largest_that_fits(delay: float) -> None:
    """It never ends after the due time, and no larger tier would fit."""
    due_at = NOW + delay
    tier = next_hop(due_at, NOW)
    fitting = [seconds for seconds in TIER_SECONDS.values() if seconds <= due_at - NOW]
    assert (TIER_SECONDS[tier] if tier else None) == (max(fitting) if fitting else None)


@given(delays)
def test_hops_end_within_the_last_second(delay: float) -> None:
    """Hop by hop less than a second is left, after a bounded number of hops."""
    now, hops = NOW, 0
    while (tier := next_hop(NOW + delay, now)) is not None:
        now += TIER_SECONDS[tier]
        hops += 1
    assert NOW + delay - now < 1.0
    assert hops <= 3 + 3 + 5 + 5 + 4 + 3 + 5 + 4


@given(delays, st.binary(max_size=50), st.none() | st.binary(max_size=10))
def test_a_wrapped_record_is_the_record(delay: float, value: bytes, key: bytes | None) -> None:
    """Bytes, key, partition and headers survive; even what is due already goes through the smallest tier, never a wrong topic."""
    message = Message("jobs.standard", value, key, 3, (("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), ("x", b"\xff")))
    wrapped = build_delayed(Topics(), message, NOW + delay, NOW)
    delayed = Delayed.model_validate_json(wrapped.value or b"")
    assert (delayed.topic, delayed.value, delayed.key, delayed.partition, delayed.headers) == message[:5]
    assert wrapped.topic == "delays." + (next_hop(NOW + delay, NOW) or SMALLEST_TIER)
    assert dict(wrapped.headers)["type"] == b"delayed"
    assert "traceparent" in dict(wrapped.headers)
