"""Caches beside a whole simulated cluster with faults: whatever dies, every job ends once, and what is served is what history holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest

from services.cache import flights, handlers, serving
from services.planner.deciding import attempts, lookups
from services.planner.state import caching
from shared.contracts.cache import CacheControl
from shared.contracts.outcome import CacheMissed, StepSucceeded
from shared.contracts.step import StepRequest
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
Patching = pytest.MonkeyPatch


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


# Planted bugs


def _strangers_share(patching: Patching) -> None:
    patching.setattr(caching, "sharers", lambda *_: ("all",))


def _questions_are_alike(patching: Patching) -> None:
    patching.setattr(StepRequest, "rendered", lambda *_: b"")


def _ages_do_not_count(patching: Patching) -> None:
    patching.setattr(serving, "_fitting", lambda _lookup, finding: finding)


def _all_is_kept(patching: Patching) -> None:
    def fill_of(job: Any, step: Any, outcome: Any, control: CacheControl) -> Any:
        return original(job, step, outcome, control.model_copy(update={"no_store": False}))

    original = caching.fill_of
    patching.setattr(caching, "fill_of", fill_of)


def _what_is_drawn_is_kept(patching: Patching) -> None:
    patching.setattr(caching, "eligible", lambda *_: True)


def _hits_are_charged(patching: Patching) -> None:
    def served_(lookup: Any, answer: Any, topics: Any) -> Any:
        made = original(lookup, answer, topics)
        outcome = StepSucceeded.model_validate_json(made.value or b"")
        return made._replace(value=outcome.model_copy(update={"usage": answer.served.saved}).to_bytes())

    original = handlers.served
    patching.setattr(serving, "served", served_)


def _followers_wait_for_ever(patching: Patching) -> None:
    def on_missed(round_: Any, outcome: CacheMissed) -> None:
        original(round_, outcome)
        found = round_.book.find(outcome.job, outcome.step)
        if found is not None and outcome.follow_seconds is not None and found[1].asks_cache:
            found[1].due_at = inf

    original = lookups.on_missed
    patching.setitem(attempts._ON, CacheMissed, on_missed)


def _lower_classes_lead(patching: Patching) -> None:
    patching.setattr(flights, "_higher", lambda *_: False)


def _everybody_leads(patching: Patching) -> None:
    patching.setattr(flights.Flights, "missed", lambda *_: None)


STORMY = FaultMix(kill=0.4, only=("cache",), down_seconds=(0.0, 2.0), jobs=80)
BUGS: dict[str, tuple[Callable[[Patching], None], FaultMix, str]] = {
    "strangers share": (_strangers_share, FaultMix(jobs=60), served.LAW),
    "questions are alike": (_questions_are_alike, FaultMix(jobs=60), served.LAW),
    "ages do not count": (_ages_do_not_count, FaultMix(jobs=80), served.LAW),
    "all is kept": (_all_is_kept, FaultMix(jobs=80), served.LAW),
    "what is drawn is kept": (_what_is_drawn_is_kept, FaultMix(jobs=60), served.LAW),
    "hits are charged": (_hits_are_charged, FaultMix(jobs=60), served.LAW),
    "followers wait for ever": (_followers_wait_for_ever, STORMY, "converges"),
    "lower classes lead": (_lower_classes_lead, FaultMix(jobs=80), served.LAW),
    "everybody leads": (_everybody_leads, FaultMix(jobs=80), served.LAW),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug, mix, law = BUGS[name]
    laws = () if mix.kill else (served.one_leads,)
    bug(monkeypatch)
    assert any(violation.law == law for seed in range(12) for violation in simulated(seed, mix, *laws).violations)


@pytest.mark.parametrize("mix", [STORMY, FaultMix(jobs=80)], ids=["stormy", "calm"])
def test_without_a_bug_the_same_runs_break_no_law(mix: FaultMix) -> None:
    for seed in range(3):
        report = simulated(seed, mix, *(() if mix.kill else (served.one_leads,)))
        assert not report.violations, report.text(f"seed {seed} of this test")
