"""The retry policy: what follows from a failed attempt, as a pure function."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.failure import FailureKind
from shared.scheduling.retry import DISPOSITION, Disposition, RetryPolicy, decide

KINDS = st.sampled_from(FailureKind)
UNIT = st.floats(0, 1, exclude_max=True)
POLICIES = st.builds(RetryPolicy, attempts=st.integers(1, 20), base_seconds=st.floats(0.001, 10), cap_seconds=st.floats(0.001, 100))


K = FailureKind
NEVER = {
    K.INVALID_JOB,
    K.CONFLICT,
    K.UNKNOWN_PATTERN,
    K.BAD_REQUEST,
    K.UNSUPPORTED,
    K.TOO_LARGE,
    K.BLOB_GONE,
    K.NO_NODE,
    K.DEADLINE,
    K.CANCELLED,
    K.LIMIT,
    K.GATE_FAILED,
    K.BLOCKED,
    K.UNCHECKED,
    K.NON_DETERMINISTIC_PATTERN,
}
ANYWHERE = {K.INVALID_OUTPUT, K.UNCLAIMED}


@pytest.mark.parametrize("kind", FailureKind)
def test_every_failure_has_a_disposition(kind: FailureKind) -> None:
    """A new kind of failure cannot be forgotten, and an old one not be changed by accident."""
    expected = Disposition.NEVER if kind in NEVER else Disposition.ANYWHERE if kind in ANYWHERE else Disposition.ELSEWHERE
    assert DISPOSITION[kind] is expected
    decision = decide(kind, 1, RetryPolicy(), 0.5)
    assert (decision is None) is (kind in NEVER)
    assert decision is None or decision == (0.25, kind not in ANYWHERE)


@given(KINDS, POLICIES, UNIT)
def test_retries_end(kind: FailureKind, policy: RetryPolicy, unit: float) -> None:
    """At the last attempt, and after it, nothing follows."""
    assert decide(kind, policy.attempts, policy, unit) is None
    assert decide(kind, policy.attempts + 5, policy, unit) is None


@given(KINDS, st.integers(1, 19), POLICIES, UNIT)
def test_a_failure_that_cannot_succeed_is_never_retried(kind: FailureKind, attempt: int, policy: RetryPolicy, unit: float) -> None:
    """NEVER means never; every other kind is retried while attempts are left, elsewhere where that helps."""
    decision = decide(kind, attempt, policy, unit)
    if DISPOSITION[kind] is Disposition.NEVER or attempt >= policy.attempts:
        assert decision is None
    else:
        assert decision is not None
        assert decision.elsewhere is (DISPOSITION[kind] is Disposition.ELSEWHERE)


@given(st.integers(1, 10_000), POLICIES, UNIT)
def test_the_wait_is_bounded(attempt: int, policy: RetryPolicy, unit: float) -> None:
    """Never negative, never above the cap, whatever the attempt; no overflow."""
    wait = policy.delay_seconds(attempt, unit)
    assert 0 <= wait <= policy.cap_seconds


@given(st.integers(1, 40), POLICIES)
def test_the_bound_of_the_wait_never_falls(attempt: int, policy: RetryPolicy) -> None:
    """Later attempts wait longer, at equal luck."""
    assert policy.delay_seconds(attempt + 1, 0.5) >= policy.delay_seconds(attempt, 0.5)


def test_full_jitter_spreads_from_zero_to_the_bound() -> None:
    """Luck alone decides between nothing and base * 2^(attempt-1)."""
    policy = RetryPolicy(base_seconds=0.5, cap_seconds=30)
    assert [policy.delay_seconds(attempt, 0.5) for attempt in (1, 2, 3, 7, 8)] == [0.25, 0.5, 1.0, 15.0, 15.0]
    assert policy.delay_seconds(3, 0.0) == 0.0


@pytest.mark.parametrize("kind", [FailureKind.CANCELLED, FailureKind.DEADLINE, FailureKind.BAD_REQUEST, FailureKind.TOO_LARGE])
def test_the_callers_faults_and_wishes_are_final(kind: FailureKind) -> None:
    """Trying again would only repeat them."""
    assert decide(kind, 1, RetryPolicy(), 0.5) is None
