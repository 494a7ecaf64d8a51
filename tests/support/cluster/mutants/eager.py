"""Bugs planted in eager dispatch: in the planner that writes into mailboxes itself, and in the worker that has offered it places.

That what was given back is not passed, and that a claim timeout runs, is planted in tests/model/test_eager_dispatch.py and shown by
tests/simulated/test_eager_dispatch.py: in a whole cluster the routers have sent such steps on before anybody could pass them. There, too,
that all homes of a planner share its places: in a cluster two of them seldom use the same one before the node tells anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.planner.deciding import driving
from services.planner.sending import eager
from services.planner.sending.eager import Eager
from services.planner.shard.effects import Effects
from services.planner.state.unclaimed import Unclaimed
from services.worker import announcer
from services.worker.credits import EagerGate, share
from shared.contracts.credits import Credits
from shared.placement.ledger import CreditLedger
from shared.placement.parties import Parties
from tests.support.cluster.faults import FaultMix

Patching = pytest.MonkeyPatch
SINGLE = {"single": 1.0}
LATE, LATER = (FaultMix(jobs=60, seconds=6.0, delivery_seconds=seconds) for seconds in (0.2, 0.6))
"""What is announced is known late."""


def _void_offer_used(patching: Patching) -> None:
    """A record of credits that offers less leaves what was offered before."""
    original = CreditLedger.on_credits

    def on_credits(self: CreditLedger, record: Credits, now: float) -> bool:
        if self._party.endswith("-planner") and (account := self.get(record.node)) is not None and account.boot == record.boot:
            best = max(record.offers.get(self._party, 0), account.offered)
            record = record.model_copy(update={"offers": {**record.offers, self._party: best}})
        return original(self, record, now)

    patching.setattr(CreditLedger, "on_credits", on_credits)


def _worker_ignores_backlog(patching: Patching) -> None:
    def shared(places: int, backlogs: Mapping[str, int], turn: int, planners: Any = ()) -> dict[str, int]:
        return share(places, dict.fromkeys(backlogs, 0), turn, planners)

    patching.setattr(announcer, "share", shared)
    patching.setattr(EagerGate, "refusal", lambda *_: None)
    patching.setattr(Eager, "_passes", lambda *_: False)
    patching.setattr(eager, "Parties", type("Unheard", (Parties,), {"others_wait": lambda *_: False}))


def _own_steps_are_passed(patching: Patching) -> None:
    patching.setattr(Unclaimed, "waits", lambda *_: False)


def _failed_write_forgotten(patching: Patching) -> None:
    def on_given(self: Effects, dispatch: Any, given: Any, result: Any) -> None:
        if not self._eager.ended(given, dispatch.step, result):
            given.failed = True
            driving.not_given(self._book, self._now(), dispatch.step)

    patching.setattr(Effects, "_on_given", on_given)


MUTANTS: dict[str, dict[str, Any]] = {
    "a void offer is used": {
        "patch": _void_offer_used,
        "breaks": "only places that are offered are used",
        "mix": LATE,
        "kinds": SINGLE,
        "seed": 1,
    },
    "a worker ignores the routers' backlog": {
        "patch": _worker_ignores_backlog,
        "breaks": "nobody is passed",
        "mix": FaultMix(jobs=60, seconds=10.0, no_node_seconds=15.0),
        "kinds": {"single": 1.0, "nowhere": 0.5},
    },
    "an eager step passes its own planner's": {
        "patch": _own_steps_are_passed,
        "breaks": "nobody is passed",
        "seed": 1,
        "mix": LATER,
        "kinds": SINGLE,
    },
    "an eager write that failed is forgotten": {
        "patch": _failed_write_forgotten,
        "breaks": "converges",
        "seed": 0,
        "mix": FaultMix(jobs=60, seconds=8.0, lost=0.08),
        "kinds": SINGLE,
    },
}
