"""Homes of new jobs: bouts are bounded, all homes are used alike, ids fit their home."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.ingress.submit import BOUT_JOBS, BOUT_SECONDS, HomeBouts, is_generated, new_job_id
from shared.topics import partition_of


@given(st.integers(1, 24), st.integers(0, 2**32), st.lists(st.floats(0, 0.02), min_size=1, max_size=400))
def test_a_bout_is_short(homes: int, seed: int, gaps: list[float]) -> None:
    """No home gets more than a bout's jobs in a bout's time, unless it is the only one or its turn comes again."""
    bouts, now, given_ = HomeBouts(homes, Random(seed)), 0.0, []
    for gap in gaps:
        now += gap
        given_.append((bouts.next(now), now))
    assert all(0 <= home < homes for home, _ in given_)
    if homes > 2:
        for _, group in groupby(given_, key=lambda entry: entry[0]):
            times = [moment for _, moment in group]
            assert len(times) <= 2 * BOUT_JOBS
            assert times[-1] - times[0] <= 2 * BOUT_SECONDS + 0.02


def test_all_homes_are_used_alike() -> None:
    """Under load each round trip over the homes gives each of them one bout."""
    bouts = HomeBouts(6, Random(1))
    counts = Counter(bouts.next(0.0) for _ in range(6 * BOUT_JOBS * 10))
    assert counts == dict.fromkeys(range(6), BOUT_JOBS * 10)


@given(st.integers(0, 23), st.integers(0, 2**32))
def test_an_id_fits_its_home(home: int, seed: int) -> None:
    """The hash of the id is the home, so that whoever knows the id alone knows the home."""
    job = new_job_id(1_700_000_000.0, Random(seed), home, 24)
    assert partition_of(job.encode(), 24) == home
    assert is_generated(job)


def test_an_impossible_wish_ends() -> None:
    """After all endings have been tried the last one is taken."""
    assert is_generated(new_job_id(1_700_000_000.0, Random(1), 24, 24))
