"""Second attempts beside slow ones in a whole simulated cluster with faults: every law holds, and planted bugs are seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from services.planner.deciding import hedging
from shared.contracts.base import PriorityClass
from shared.contracts.event import StepAnswered
from tests.support.cluster import settings, workload
from tests.support.cluster.faults import FaultMix, drawn
from tests.support.cluster.laws import hedges
from tests.support.cluster.simulation import Report, simulate
from tests.support.cluster.violation import Violation
from tests.support.cluster.workload import WEIGHTS
from tests.support.cluster.world import World

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = {"single": 12.0, "chain": 3.0, "cancelled": 1.0, "rest": WEIGHTS["rest"]}
SLOW_NODE = FaultMix(hang=0.12, jobs=120, seconds=14.0)
Patching = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def eager_hedges(monkeypatch: Patching) -> None:
    """As many, and as soon, as a run of a few seconds needs; and all jobs are interactive."""
    given = settings.planner
    often = {"hedge_share": 0.5, "hedge_samples": 8, "hedge_least_seconds": 0.3}
    monkeypatch.setattr(settings, "planner", lambda mix: given(mix).model_copy(update=often))
    monkeypatch.setattr(workload, "CLASSES", (PriorityClass.INTERACTIVE,) * 3 + tuple(PriorityClass))


def simulated(seed: int, mix: FaultMix | None = None) -> tuple[Report, dict[str, int]]:
    counted: dict[str, int] = {}

    def count(world: World) -> Iterator[Violation]:
        counted["begun"], counted["won"] = len(hedges.hedged(world)), hedges.won(world)
        counted["answers"] = sum(isinstance(w.value, StepAnswered) for w in world.history.all_valid())
        yield from ()

    return simulate(seed, mix, kinds=KINDS, laws=(hedges.check, count)), counted


def test_slow_attempts_get_a_second_one() -> None:
    """A share of calls says nothing for a minute: some of their steps are answered by the attempt beside."""
    runs = [simulated(seed, SLOW_NODE) for seed in (0, 2, 3)]  # a seed alone has between none and eight
    assert not [report.text("") for report, _ in runs if report.violations]
    assert sum(counted["begun"] for _, counted in runs) >= 3
    assert sum(counted["won"] for _, counted in runs) >= 2


@pytest.mark.parametrize("seed", range(4))
def test_the_laws_hold(seed: int) -> None:
    """Whatever dies in between: one answer counts, who has lost is stopped, and what was used is counted."""
    report, _ = simulated(seed, replace(drawn(Random(seed)), hang=0.1, jobs=80))
    assert not report.violations, report.text("")


def _for_streams_too(patching: Patching) -> None:
    patching.setattr(hedging, "may_be_hedged", lambda *_: True)


def _again_and_again(patching: Patching) -> None:
    original = hedging.begun

    def begun(book: Any, job: Any, step: Any, former: Any) -> None:
        original(book, job, step, former)
        step.former = None

    patching.setattr(hedging, "begun", begun)


def _as_good_as_lost(patching: Patching) -> None:
    """The former's renewals are those of a claim that nobody knows."""
    patching.setattr(hedging, "begun", lambda *_: None)


def _where_it_runs(patching: Patching) -> None:
    original = hedging.due

    def due(*given: Any) -> Any:
        failure = original(*given)
        return None if failure is None else failure.model_copy(update={"node": None})

    patching.setattr(hedging, "due", due)


@pytest.mark.parametrize("bug", [_for_streams_too, _again_and_again, _as_good_as_lost, _where_it_runs])
def test_a_planted_bug_is_seen(bug: Callable[[Patching], None], monkeypatch: Patching) -> None:
    bug(monkeypatch)
    seen = (violation.law for seed in range(12) for violation in simulated(seed, SLOW_NODE)[0].violations)
    assert hedges.LAW in seen
