"""Token buckets: never more than burst + rate * t, and who waits as long as he was told is served."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.admission.bucket_store import DEBT_SECONDS, Debit, MemoryBuckets, ask, settled
from shared.access import Rate
from shared.clock import ManualClock

RATES = st.builds(Rate, per_second=st.floats(0.01, 1_000), burst=st.floats(1, 10_000))
SHARES = st.floats(0, 1)
STEPS = st.lists(st.tuples(st.floats(0, 100), SHARES), min_size=1, max_size=40)


@given(RATES, STEPS)
def test_never_more_than_burst_and_rate_allow(rate: Rate, steps: list[tuple[float, float]]) -> None:
    """In every stretch of time, whatever is asked for and when."""
    now, full_at = 1_000.0, 0.0
    taken: list[tuple[float, float]] = []
    for wait, share in steps:
        now += wait
        level = ask(rate, full_at, share * rate.burst, now)
        if level.wait_seconds == 0:
            full_at = now + level.full_seconds
            taken.append((now, share * rate.burst))
        assert 0 <= level.remaining(rate) <= rate.burst + 1e-3
    for begin in range(len(taken)):
        for end in range(begin, len(taken)):
            amount = sum(amount for _, amount in taken[begin : end + 1])
            allowed = rate.burst + rate.per_second * (taken[end][0] - taken[begin][0])
            assert amount <= allowed * (1 + 1e-6) + 1e-3


@given(RATES, STEPS, SHARES)
def test_retry_after_is_exact(rate: Rate, steps: list[tuple[float, float]], share: float) -> None:
    """Served after exactly that long, and refused a little earlier."""
    now, full_at = 1_000.0, 0.0
    for wait, part in steps:
        now += wait
        level = ask(rate, full_at, part * rate.burst, now)
        full_at = now + level.full_seconds if level.wait_seconds == 0 else full_at
    level = ask(rate, full_at, share * rate.burst, now)
    if level.wait_seconds > 0:
        assert ask(rate, full_at, share * rate.burst, now + level.wait_seconds).wait_seconds == 0
        early = now + level.wait_seconds * 0.99 - 2e-5
        assert early < now or ask(rate, full_at, share * rate.burst, early).wait_seconds > 0


@given(RATES, SHARES, SHARES | st.floats(1, 1_000))
def test_settling_leaves_what_was_used(rate: Rate, estimated: float, used: float) -> None:
    """As if the truth had been known, a hundred times the estimate too; a debt holds a key for a day at most, or for one more burst."""
    now = 1_000.0
    full_at = now + ask(rate, now, estimated * rate.burst, now).full_seconds
    after = settled(rate, full_at, (used - estimated) * rate.burst, now)
    most = rate.fill_seconds + max(DEBT_SECONDS, rate.fill_seconds)
    assert after - now == pytest.approx(min(used * rate.fill_seconds, most), abs=1e-6)
    assert settled(rate, after, 1e12 * rate.burst, now) - now <= most * (1 + 1e-9)


def test_all_buckets_give_or_none() -> None:
    """A request that its tokens forbid costs no request; the levels tell who refuses."""

    async def steps() -> None:
        clock = ManualClock(0.0)
        buckets = MemoryBuckets(clock)
        many, few = Rate(1, 10), Rate(1, 2)
        for _ in range(2):
            assert [level.wait_seconds for level in await buckets.take([Debit("a", many, 1), Debit("b", few, 1)])] == [0, 0]
        first, second = await buckets.take([Debit("a", many, 1), Debit("b", few, 1)])
        assert (first.wait_seconds, second.wait_seconds) == (0, pytest.approx(1))  # type: ignore[comparison-overlap]
        assert (first.remaining(many), second.remaining(few)) == (8, 0)
        clock.advance(1.0)
        first, second = await buckets.take([Debit("a", many, 1), Debit("b", few, 1)])
        assert (first.remaining(many), second.remaining(few)) == (8, 0)

    asyncio.run(steps())
