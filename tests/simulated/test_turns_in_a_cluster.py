"""Conversations in a whole simulated cluster with faults: turns one by one, each added once, whatever dies; planted bugs are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.planner.conversations.owner import Conversations
from services.planner.draft import Draft
from services.planner.job.live import LiveJob
from services.planner.round import Round
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import turns
from tests.support.cluster.simulation import Report, simulate
from tests.support.cluster.workload import WEIGHTS

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = {"talks": 12.0, "chain": 1.0, "cancelled": 1.0, "rest": WEIGHTS["rest"]}
Patching = pytest.MonkeyPatch


KILLED = FaultMix(kill=0.8, down_seconds=(0.0, 1.0), send_seconds=0.4, ack_seconds=0.4, lost=0.1, only=("planner",), jobs=40, seconds=16.0)
"""What a planner owes when it dies is often not sent yet: one seed in eight sees who forgets it, of drawn faults one in forty."""


def simulated(seed: int, mix: FaultMix | None = None) -> Report:
    return simulate(seed, mix, kinds=KINDS, laws=(turns.check,))


@pytest.mark.parametrize(("seed", "mix"), [*((seed, None) for seed in range(6)), (1, KILLED)])
def test_the_laws_hold(seed: int, mix: FaultMix | None) -> None:
    report = simulated(seed, mix)
    assert not report.violations, report.text("")
    assert report.jobs >= 20


def grants_to_all(patching: Patching) -> None:
    """Who asks has his turn, whoever else has."""
    original = Conversations._grant_next

    def grant_next(self: Conversations, draft: Draft, key: Any, talk: Any) -> None:
        talk.known = talk.known.changed_to(current=None)
        original(self, draft, key, talk)

    patching.setattr(Conversations, "_grant_next", grant_next)


def owes_no_end(patching: Patching) -> None:
    """A job is out although its conversation's owner may not have heard of its end."""
    original = Round.end_turn

    def end_turn(self: Round, job: LiveJob) -> None:
        original(self, job)
        job.turn_owed = False

    patching.setattr(Round, "end_turn", end_turn)


@pytest.mark.parametrize("bug", [grants_to_all, owes_no_end])
def test_a_planted_bug_is_seen(bug: Callable[[Patching], None], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    assert any(turns.LAW in {violation.law for violation in simulated(seed, KILLED).violations} for seed in (1, *range(40)))
