"""Bugs planted in what is kept: places and the watermark (the rules of tests/model/test_kept.py)."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.draft import Draft
from services.planner.job.live import LiveJob
from services.planner.kept import Kind, Place
from services.planner.round import Round
from services.planner.state import snapshots
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.mutants.mixes import SMALL

Patching = pytest.MonkeyPatch
FAR = Place(10**9, 0.0)
"""Holds nothing."""
LAW = "the watermark passes nothing that recovery needs"


def holding_nothing(patching: Patching, what: str) -> None:
    """The watermark passes whatever is kept of this kind."""
    original = Kind.lowest.fget  # type: ignore[attr-defined]

    def lowest(self: Kind[Any, Any]) -> Any:
        return None if what in self.chore.name else original(self)

    patching.setattr(Kind, "lowest", property(lowest))


def _snapshot_counts_before_its_acknowledgement(patching: Patching) -> None:
    original = snapshots.write

    def write(kept: Kind[str, LiveJob], draft: Draft, job: LiveJob, name: str) -> None:
        original(kept, draft, job, name)
        kept.places[job.id] = FAR

    patching.setattr(snapshots, "write", write)


def _told_again_counts_before_its_acknowledgement(patching: Patching) -> None:
    original = Kind.tell

    def tell(self: Kind[Any, Any], draft: Draft, group: str, event: Any, name: Any, **more: Any) -> None:
        original(self, draft, group, event, name, **more)
        if name in self.places:
            self.places[name] = FAR

    patching.setattr(Kind, "tell", tell)


def _cancel_let_go_before_its_job_is_acknowledged(patching: Patching) -> None:
    original = Round.enter

    def enter(self: Round, event: Any) -> LiveJob:
        self.book.cancels._guesses.places.pop(event.job, None)
        return original(self, event)

    patching.setattr(Round, "enter", enter)


SLOW: dict[str, Any] = {"ack_seconds": 0.4, "send_seconds": 0.4}
MUTANTS: dict[str, dict[str, Any]] = {
    "watermark before the snapshot's ack": {
        "patch": _snapshot_counts_before_its_acknowledgement,
        "breaks": LAW,
        "seed": 16,
        "mix": FaultMix(tight=True, **SLOW, **SMALL),
        "kinds": {"cancelled": 1.0, "single": 2.0},
    },
    "watermark before the ack of what is told again": {
        "patch": _told_again_counts_before_its_acknowledgement,
        "breaks": LAW,
        "mix": FaultMix(tight=True, **SLOW, **SMALL),
        "kinds": {"metered": 1.0, "scheduled": 1.0},
    },
    "a cancel let go before its job is in history": {
        "patch": _cancel_let_go_before_its_job_is_acknowledged,
        "breaks": LAW,
        "seed": 4,
        "mix": FaultMix(**SLOW, **SMALL),
        "kinds": {"elsewhere": 1.0},
    },
}
