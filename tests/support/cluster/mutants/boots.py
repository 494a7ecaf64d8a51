"""Bugs planted in what happens when a node's worker starts again."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from services.planner.deciding import attempts
from services.planner.round import Round
from services.planner.state.incarnations import Incarnations
from services.worker.boots import EarlierBoots
from shared.contracts.outcome import StepClaimed
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import boots

Patching = pytest.MonkeyPatch
KILLED = FaultMix(kill=0.6, only=("worker",), down_seconds=(0.5, 1.0), jobs=30, seconds=10.0)
SUCCEEDED = FaultMix(succeed=0.6, jobs=30, seconds=10.0)


def _nobody_waits(patching: Patching) -> None:
    def look(self: EarlierBoots, _: Any) -> None:
        self.waits = False

    patching.setattr(EarlierBoots, "look", look)


def refusal_disarms(patching: Patching) -> None:
    original = attempts._ON[StepClaimed]

    def on_claimed(round_: Round, outcome: StepClaimed) -> None:
        original(round_, outcome)
        found = round_.book.find(outcome.job, outcome.step)
        if found is not None and round_.book.incarnations.superseded(outcome.node, outcome.claim, round_.now):
            job, step = found
            if step.claim is None and step.attempt == outcome.attempt:
                step.routed, step.due_at = ("nobody", 0), inf
                round_.book.arm(job)

    patching.setitem(attempts._ON, StepClaimed, on_claimed)


MUTANTS: dict[str, dict[str, Any]] = {
    "void before the earlier boot has left": {"patch": _nobody_waits, "breaks": boots.LAW, "mix": SUCCEEDED},
    "what an earlier boot has claimed is left to its lease": {
        "patch": lambda patching: patching.setattr(Incarnations, "started", lambda *_: False),
        "breaks": boots.TIME,
        "mix": KILLED,
        "seed": 1,
        "laws": (boots.check_times,),
    },
}
