"""Batches in a whole simulated cluster with faults: every line once, counts right, whatever dies; planted bugs are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.planner.batches.batch_owner import BatchOwner, Key, Running
from services.planner.job.live import LiveJob
from services.planner.round import Round
from services.planner.state.book import Book
from shared.contracts.batch import LineEnded
from tests.support.cluster.laws import batches
from tests.support.cluster.simulation import Report, simulate
from tests.support.cluster.workload import WEIGHTS

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = {"batched": 2.0, "chain": 1.0, "rest": WEIGHTS["rest"]}
Patching = pytest.MonkeyPatch


def simulated(seed: int) -> Report:
    return simulate(seed, kinds=KINDS, laws=(batches.check,))


@pytest.mark.parametrize("seed", range(6))
def test_the_laws_hold(seed: int) -> None:
    report = simulated(seed)
    assert not report.violations, report.text("")


def an_end_counts_whenever_it_is_told(patching: Patching) -> None:
    original = BatchOwner.on_ended

    def on_ended(self: BatchOwner, round_: Round, told: LineEnded, paid: Callable[[], None]) -> None:
        one = self.kept.things.get((told.tenant, told.batch))
        if one is not None and not one.over:
            one.open.add(told.number)
        original(self, round_, told, paid)

    patching.setattr(BatchOwner, "on_ended", on_ended)


def gathered_ends_hold_nothing(patching: Patching) -> None:
    original = BatchOwner.on_ended

    def on_ended(self: BatchOwner, round_: Round, told: LineEnded, paid: Callable[[], None]) -> None:
        paid()
        original(self, round_, told, lambda: None)

    patching.setattr(BatchOwner, "on_ended", on_ended)


def a_line_owes_no_end(patching: Patching) -> None:
    original = Book.owe_end

    def owe_end(self: Book, round_: Round, job: LiveJob) -> None:
        original(self, round_, job)
        job.line_owed = False

    patching.setattr(Book, "owe_end", owe_end)


def a_successor_sends_nothing_again(patching: Patching) -> None:
    original = BatchOwner.resume

    def resume(self: BatchOwner, round_: Round, to_monotonic: float) -> None:
        original(self, round_, to_monotonic)
        for one in self.kept.things.values():
            one.again = False

    patching.setattr(BatchOwner, "resume", resume)


def a_cancel_ends_it_at_once(patching: Patching) -> None:
    original = BatchOwner._end

    def end(self: BatchOwner, round_: Round, key: Key, one: Running, why: Any) -> None:
        original(self, round_, key, one, why)
        if not one.over:
            one.open -= {*one.gathered, *one.writing}
            self._finish(round_, one)

    patching.setattr(BatchOwner, "_end", end)


BUGS = [
    an_end_counts_whenever_it_is_told,
    gathered_ends_hold_nothing,
    a_line_owes_no_end,
    a_successor_sends_nothing_again,
    a_cancel_ends_it_at_once,
]


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_seen(bug: Callable[[Patching], None], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    seen = (violation.law for seed in range(40) for violation in simulated(seed).violations)
    assert batches.LAW in seen
