"""Chaos: a process that ends by itself fails the run, unless the broker was away for too long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.lab.chaos import stage as stages
from infra.lab.chaos.callers import Balancer
from infra.lab.chaos.crashes import PATIENCE_SECONDS, Absence, Crash, defects
from infra.lab.chaos.jobs import NEVER, Ledger
from infra.lab.chaos.plan import Fault, FaultKind
from infra.lab.chaos.run import Outcome
from infra.lab.chaos.stage import Stage
from infra.verify.report import Report
from shared.clock import ManualClock

LONG = PATIENCE_SECONDS + 5.0


def crash(at: float) -> Crash:
    return Crash("planner-2", at, "ended by itself: the end of its log")


@pytest.mark.parametrize(
    ("at", "absences", "is_defect"),
    [
        (100.0, [], True),
        (100.0, [Absence(70.0, 90.0)], True),  # 20 s must be waited out
        (100.0 + LONG, [Absence(100.0, NEVER)], False),
        (100.0 + PATIENCE_SECONDS / 2, [Absence(100.0, 100.0 + LONG)], True),  # it had not been away for long
        (100.0 + LONG + 10.0, [Absence(100.0, 100.0 + LONG)], False),  # ending takes its time
        (100.0 + LONG + PATIENCE_SECONDS + 1.0, [Absence(100.0, 100.0 + LONG)], True),
        (50.0, [Absence(100.0, 100.0 + LONG)], True),
    ],
)
def test_only_a_long_absence_of_the_broker_excuses(at: float, absences: list[Absence], is_defect: bool) -> None:
    assert defects([crash(at)], absences) == ([crash(at)] if is_defect else [])


def outcome(*crashes: Crash) -> Outcome:
    return Outcome(Ledger(), [], Report(), list(crashes), [Absence(0.0, LONG)], 0.0, 0.0, 0.0)


def test_a_crash_fails_the_run_and_is_named() -> None:
    assert outcome().wrong == []
    assert outcome(crash(LONG)).wrong == []
    assert outcome(crash(LONG), crash(1_000.0)).wrong == ["planner-2 ended by itself: the end of its log"]


class Process:
    """A service that runs, or does not; `on_look` happens when somebody asks."""

    def __init__(self, log: Path, on_look: Callable[[], None] = lambda: None) -> None:
        self.running, self.log, self._on_look = True, log, on_look
        self.daemon = self
        self.name = "router"

    def pid(self) -> int | None:
        self._on_look()
        return 1 if self.running else None

    def start(self) -> None:
        self.running = True

    def kill(self) -> None:
        self.running = False


def stage(process: Process, directory: Path) -> Stage:
    cluster = SimpleNamespace(services={"router": process})
    return Stage(cast("Any", None), cast("Any", cluster), directory, Balancer([]), ManualClock())


def test_what_has_ended_is_noted_and_started_again(tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    log.write_text("first\nlast words\n")
    process = Process(log)
    found = stage(process, tmp_path)
    found.supervise()
    assert found.crashes == []
    process.kill()
    found.supervise()
    assert [(one.process, "last words" in one.what) for one in found.crashes] == [("router", True)]
    assert process.running


def test_what_a_fault_ends_has_not_ended_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor looks while the fault has the process in its hands."""
    process = Process(tmp_path / "router.log")
    found = stage(process, tmp_path)

    def kill_and_look(stage: Stage, fault: Fault) -> None:
        process.kill()
        stage.supervise()
        assert not process.running
        process.start()

    monkeypatch.setitem(stages._DO, FaultKind.KILL, kill_and_look)
    found.strike(Fault(FaultKind.KILL, ("router",)))
    assert found.crashes == []


def test_no_fault_begins_while_the_supervisor_looks(tmp_path: Path) -> None:
    """Else a process that is killed between two looks of the supervisor would seem to have ended by itself."""
    looked: list[bool] = []
    process = Process(tmp_path / "router.log", lambda: looked.append(found._lock.locked()))
    found = stage(process, tmp_path)
    found.supervise()
    assert looked == [True]
