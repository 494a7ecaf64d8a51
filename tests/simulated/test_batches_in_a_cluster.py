"""Batches in a whole simulated cluster with faults: every line once, counts right, whatever dies; planted bugs are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.planner.batches.batch_owner import BatchOwner, Key
from services.planner.draft import Draft, EndLine
from services.planner.job.live import LiveJob
from services.planner.round import Round
from services.planner.shard.batch_lines import BatchLines
from shared.contracts.batch import LineEnded
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import batches
from tests.support.cluster.simulation import Report, simulate
from tests.support.cluster.workload import WEIGHTS

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = {"batched": 2.0, "chain": 1.0, "rest": WEIGHTS["rest"]}
Patching = pytest.MonkeyPatch


KILLED = FaultMix(
    kill=0.6, refuse=0.8, away_seconds=(1.0, 5.0), down_seconds=(0.0, 1.0), duplicated=0.2, only=("planner",), jobs=12, seconds=12.0
)
"""Planners die while one topic takes nothing: what was to be told, or written, is lost with them."""


def simulated(seed: int, mix: FaultMix | None = None) -> Report:
    return simulate(seed, mix, KINDS if mix is None else {"batched": 1.0}, (batches.check,))


@pytest.mark.parametrize("seed", range(4))
def test_the_laws_hold(seed: int) -> None:
    report = simulated(seed)
    assert not report.violations, report.text("")


def an_end_counts_whenever_it_is_told(patching: Patching) -> None:
    original = BatchOwner.on_ended

    def on_ended(self: BatchOwner, draft: Draft, told: LineEnded, paid: Callable[[], None]) -> None:
        one = self.kept.things.get((told.tenant, told.batch))
        if one is not None and not one.over:
            one.open.add(told.number)
        original(self, draft, told, paid)

    patching.setattr(BatchOwner, "on_ended", on_ended)


def gathered_ends_hold_nothing(patching: Patching) -> None:
    original = BatchOwner.on_ended

    def on_ended(self: BatchOwner, draft: Draft, told: LineEnded, paid: Callable[[], None]) -> None:
        paid()
        original(self, draft, told, lambda: None)

    patching.setattr(BatchOwner, "on_ended", on_ended)


def a_line_owes_no_end(patching: Patching) -> None:
    """It is told a moment later, if its planner still lives."""
    tell, original = BatchLines.end, Round.owe_end

    async def later(self: BatchLines, owed: EndLine) -> None:
        await self._wiring.clock.sleep(4.0)
        tell(self, owed)

    patching.setattr(BatchLines, "end", lambda self, owed: self._wiring.spawn(later(self, owed)))

    def owe_end(self: Round, job: LiveJob) -> None:
        original(self, job)
        job.line_owed = False

    patching.setattr(Round, "owe_end", owe_end)


def a_successor_sends_nothing_again(patching: Patching) -> None:
    original = BatchOwner.resume

    def resume(self: BatchOwner, draft: Draft, to_monotonic: float) -> None:
        original(self, draft, to_monotonic)
        for one in self.kept.things.values():
            one.again = False

    patching.setattr(BatchOwner, "resume", resume)


def a_cancel_ends_it_at_once(patching: Patching) -> None:
    original = BatchOwner._end

    def end(self: BatchOwner, draft: Draft, key: Key, one: Any, why: Any) -> None:
        original(self, draft, key, one, why)
        if not one.over:
            one.open -= {*one.gathered, *one.writing}
            self._finish(draft, one)

    patching.setattr(BatchOwner, "_end", end)


BUGS: dict[Callable[[Patching], None], int] = {
    an_end_counts_whenever_it_is_told: 0,
    gathered_ends_hold_nothing: 42,
    a_line_owes_no_end: 4,
    a_successor_sends_nothing_again: 7,
    a_cancel_ends_it_at_once: 1,
}
"""With the seed that saw it first."""


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_seen(bug: Callable[[Patching], None], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    seeds = (BUGS[bug], *range(60))
    seen = (violation.law for seed in seeds for violation in simulated(seed, KILLED).violations)
    assert batches.LAW in seen


@pytest.mark.parametrize("seed", sorted({*BUGS.values()}))
def test_without_them_nothing_is_seen(seed: int) -> None:
    report = simulated(seed, KILLED)
    assert not report.violations, report.text("")
