"""Caches beside a whole simulated cluster with faults: whatever dies, every job ends once, and what is served is what history holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from tests.support.cluster import settings
from tests.support.cluster.faults import FaultMix, drawn
from tests.support.cluster.laws import served
from tests.support.cluster.simulation import Law, Report, simulate
from tests.support.cluster.violation import Violation
from tests.support.cluster.workload import WEIGHTS
from tests.support.cluster.world import World

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = {"often": 20.0, "cancelled": 1.0, "metered": 1.0, "rest": WEIGHTS["rest"], "chat": 1.0}
HITS: list[int] = []


def counted(world: World) -> Iterator[Violation]:
    HITS.append(served.hits(world))
    yield from ()


def simulated(seed: int, mix: FaultMix, *laws: Law, caches: tuple[str, ...] = settings.CACHES) -> Report:
    HITS.clear()
    return simulate(seed, mix, KINDS, (served.check, counted, *laws), aside=caches)


@pytest.mark.parametrize("seed", range(10))
def test_the_laws_hold(seed: int) -> None:
    """With kills of caches among all others, and a store that fails, hangs and forgets."""
    mix = replace(drawn(Random(seed)), store=0.1 * (seed % 3), jobs=60)
    report = simulated(seed, mix)
    assert not report.violations, report.text(f"seed {seed} of this test")


def test_without_faults_most_repeated_questions_are_served() -> None:
    report = simulated(1, FaultMix(jobs=80), served.one_leads)
    assert not report.violations, report.text("")
    assert HITS[0] >= 15
    assert not report.ended


def test_without_a_cache_nothing_is_served_and_nobody_waits_long() -> None:
    report = simulated(1, FaultMix(jobs=60), caches=())
    assert not report.violations, report.text("")
    assert HITS == [0]
