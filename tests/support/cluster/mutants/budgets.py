"""Bugs planted in the budgets of tenants: what is granted, held, used, reserved, and what a successor knows of it.

Answers of the past that are taken do harm too seldom here; tests/simulated/test_budget_model.py plants them.
"""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.budgets.rules import NOTHING, ONE_JOB, plus
from services.planner.budgets.shares import Shares
from services.planner.draft import Tell
from services.planner.kept import Kept
from services.planner.round import Round
from services.planner.sending.messages import of_effect
from services.planner.shard.home import Home
from services.planner.state.funds import Funds
from shared.contracts.budget import ALWAYS, BudgetGranted, TenantAccount
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.mutants.kept import holding_nothing
from tests.support.cluster.mutants.mixes import CALM, UNKNOWN

Patching = pytest.MonkeyPatch
METERED = {"metered": 1.0}
TAKEN_OVER = FaultMix(stop=0.6, only=("planner",), jobs=40, seconds=12.0)
"""Handed over at once, so that what is granted, reserved or used still matters."""


def _grants_forgotten(patching: Patching) -> None:
    original = Kept.restore
    patching.setattr(Kept, "restore", lambda self, event, *at: isinstance(event, TenantAccount) or original(self, event, *at))


def _grant_counted_twice(patching: Patching) -> None:
    original = Shares.on_granted

    def on_granted(self: Shares, now: float, answer: BudgetGranted) -> None:
        purse = self.get(answer.tenant, answer.day)
        before = None if purse is None else (purse.serial, purse.total)
        original(self, now, answer)
        if purse is not None and before is not None and before[0] == 1 < purse.serial:
            purse.total = plus(before[1], answer.total)

    patching.setattr(Shares, "on_granted", on_granted)


def _granted_before_it_is_recorded(patching: Patching) -> None:
    original = Home._write

    async def write(self: Home, round_: Round) -> None:
        for effect in round_.after:
            if isinstance(effect, Tell):
                self._wiring.outbox.post(of_effect(effect, self._wiring.topics))
        await original(self, round_)

    patching.setattr(Home, "_write", write)


def _use_not_recorded(patching: Patching) -> None:
    original = Shares.release

    def release(self: Shares, purse: Any, reserved: Any, used: Any) -> None:
        known = (purse.tenant, purse.day) in self.kept.changed
        original(self, purse, reserved, used)
        if not known:
            self.kept.changed.pop((purse.tenant, purse.day), None)

    patching.setattr(Shares, "release", release)


def _reservation_freed_twice(patching: Patching) -> None:
    original = Shares.release

    def release(self: Shares, purse: Any, reserved: Any, used: Any) -> None:
        original(self, purse, plus(reserved, reserved), used)

    patching.setattr(Shares, "release", release)


def _reservations_forgotten(patching: Patching) -> None:
    patching.setattr(Funds, "resume", lambda *_: None)


def _job_counted_for_a_step_only(patching: Patching) -> None:
    original = Funds.close

    def close(self: Funds, *given: Any, **more: Any) -> None:
        original(self, *given, **more)
        job = given[1]
        purse = self.shares.get(job.accepted.request.tenant, ALWAYS)
        if purse is not None:
            self.shares.release(purse, ONE_JOB, NOTHING)

    patching.setattr(Funds, "close", close)


def _watermark_past_a_share(patching: Patching) -> None:
    holding_nothing(patching, "shares")


MUTANTS: dict[str, dict[str, Any]] = {
    "a grant forgotten at take-over": {
        "patch": _grants_forgotten,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": TAKEN_OVER,
        "kinds": METERED,
        "seed": 2,
    },
    "a grant counted twice": {"patch": _grant_counted_twice, "breaks": "budgets are never exceeded", "mix": CALM, "kinds": METERED},
    "a budget granted before that is recorded": {
        "patch": _granted_before_it_is_recorded,
        "breaks": "budgets are never exceeded",
        "seed": 1,
        "mix": UNKNOWN,
        "kinds": METERED,
    },
    "use of a budget not recorded": {"patch": _use_not_recorded, "breaks": "budgets are never exceeded", "mix": CALM, "kinds": METERED},
    "a reservation freed twice": {
        "patch": _reservation_freed_twice,
        "breaks": "budgets are never exceeded",
        "seed": 2,
        "mix": CALM,
        "kinds": METERED,
    },
    "reservations forgotten at take-over": {
        "patch": _reservations_forgotten,
        "breaks": "budgets are never exceeded",
        "seed": 1,
        "mix": TAKEN_OVER,
        "kinds": METERED,
    },
    "a job counted as running for one step only": {
        "patch": _job_counted_for_a_step_only,
        "breaks": "budgets are never exceeded",
        "seed": 10,
        "mix": CALM,
        "kinds": METERED,
    },
    "watermark past a tenant's share": {
        "patch": _watermark_past_a_share,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": CALM,
        "kinds": METERED,
    },
}
