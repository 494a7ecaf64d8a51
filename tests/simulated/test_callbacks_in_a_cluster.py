"""Callbacks in a whole simulated cluster with faults: each end is taken by its receiver or a dead letter; planted bugs are seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from services.ingress.callbacks.deliveries import Deliveries
from services.ingress.callbacks.port import Heard
from shared.kafka.port import Record
from shared.processing.window import Window
from tests.support.cluster.faults import FaultMix, drawn
from tests.support.cluster.laws import callbacks
from tests.support.cluster.simulation import Report, simulate
from tests.support.cluster.workload import WEIGHTS

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = {"called": 12.0, "chain": 1.0, "rest": WEIGHTS["rest"]}
Patching = pytest.MonkeyPatch


def simulated(seed: int, mix: FaultMix | None = None) -> Report:
    return simulate(seed, mix or replace(drawn(Random(seed)), receivers=0.5), KINDS, (callbacks.check,))


@pytest.mark.parametrize("seed", range(6))
def test_the_laws_hold(seed: int) -> None:
    report = simulated(seed)
    assert not report.violations, report.text("")
    assert report.jobs >= 20


def passes_what_is_on_its_way(patching: Patching) -> None:
    """A record is finished when it is taken."""
    original = Deliveries._read

    def read(self: Deliveries, window: Window, record: Record) -> Any:
        found = original(self, window, record)
        window.finish(record.offset)
        return found

    patching.setattr(Deliveries, "_read", read)


def forgets_what_failed(patching: Patching) -> None:
    def again(self: Deliveries, telling: Any, what: str, heard: Heard | None = None) -> None:
        self.intake.finish(telling.window, telling.record.offset)

    patching.setattr(Deliveries, "_again", again)


def gives_up_in_silence(patching: Patching) -> None:
    def bury(self: Deliveries, telling: Any, error: Exception) -> None:
        self.intake.finish(telling.window, telling.record.offset)

    patching.setattr(Deliveries, "_bury", bury)


BUGS = [passes_what_is_on_its_way, forgets_what_failed, gives_up_in_silence]


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_seen(bug: Callable[[Patching], None], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)

    dying = FaultMix(kill=0.8, only=("ingress",), receivers=0.6)
    seen = (violation.law for seed in range(40) for violation in simulated(seed, dying).violations)
    assert callbacks.LAW in seen
