"""Bugs planted in what happens when a node's worker starts again."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from services.planner.deciding import attempts
from services.planner.round import Round
from services.planner.state.incarnations import Incarnations
from services.worker.announcer import Announcer
from services.worker.boots import EarlierBoots
from shared.contracts.node import Node
from shared.contracts.outcome import StepClaimed
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import boots, service_ends
from tests.support.cluster.mutants.mixes import SMALL

Patching = pytest.MonkeyPatch
KILLED = FaultMix(kill=0.6, only=("worker",), down_seconds=(0.5, 1.0), jobs=30, seconds=10.0)
SUCCEEDED = FaultMix(succeed=0.6, jobs=30, seconds=10.0)


def _nobody_waits(patching: Patching) -> None:
    def look(self: EarlierBoots, _: Any) -> None:
        self.waits = False

    patching.setattr(EarlierBoots, "look", look)


def _earlier_until_one_has_a_number(patching: Patching) -> None:
    original = Announcer.on_own_record

    def on_own_record(self: Announcer, node: Node | None) -> None:
        if node is not None and self._reader.number is None:
            self._known_boots.add(node.boot)
        original(self, node)

    patching.setattr(Announcer, "on_own_record", on_own_record)


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
    "who has no number yet takes the next boot for an earlier one": {
        "patch": _earlier_until_one_has_a_number,
        "breaks": service_ends.READY,
        "mix": FaultMix(succeed=1.0, pause_seconds=(0.5, 3.0), send_seconds=0.6, ack_seconds=0.4, delivery_seconds=0.6, **SMALL),
        "seed": 10,
    },
    "what an earlier boot has claimed is left to its lease": {
        "patch": lambda patching: patching.setattr(Incarnations, "started", lambda *_: False),
        "breaks": boots.TIME,
        "mix": KILLED,
        "seed": 1,
        "laws": (boots.check_times,),
    },
}
