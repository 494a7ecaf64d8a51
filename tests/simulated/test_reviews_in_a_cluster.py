"""Reviews in a whole simulated cluster with faults: people decide by REST and beside it, and every law holds; planted bugs are seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.contracts.review import Deliberation, ReviewGiven, Unheard
from tests.support.cluster.laws import reviews
from tests.support.cluster.simulation import Report, simulate
from tests.support.cluster.workload import WEIGHTS

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = {"reviewed": 10.0, "chain": 2.0, "cancelled": 1.0, "rest": WEIGHTS["rest"]}
Patching = pytest.MonkeyPatch


def simulated(seed: int) -> Report:
    return simulate(seed, kinds=KINDS, laws=(reviews.check,))


@pytest.mark.parametrize("seed", range(6))
def test_the_laws_hold(seed: int) -> None:
    """Whatever dies in between, each review is decided once, and whoever is told what became of his decision is told the truth."""
    report = simulated(seed)
    assert not report.violations, report.text("")
    assert report.jobs >= 20


def counts_messages(patching: Patching) -> None:
    """One who says it again counts once more."""
    original = Deliberation.refusal

    def refusal(self: Deliberation, given: ReviewGiven) -> Unheard | None:
        found = original(self, given)
        return None if found is Unheard.SAID_OTHERWISE else found

    patching.setattr(Deliberation, "refusal", refusal)


def forgets_who_said_it(patching: Patching) -> None:
    """Nothing is known of a decision but that there was one: who said so is told that he was not heard."""
    patching.setattr(Deliberation, "heard", lambda *_: False)


@pytest.mark.parametrize("bug", [counts_messages, forgets_who_said_it])
def test_a_planted_bug_is_seen(bug: Callable[[Patching], None], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    seen = (violation.law for seed in range(20) for violation in simulated(seed).violations)
    assert reviews.LAW in seen
