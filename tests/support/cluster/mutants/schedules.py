"""Bugs planted in schedules, and in what is known of delayed jobs: last runs, missed runs, owners, due times, cancels."""

from __future__ import annotations

from typing import Any

import pytest

from services.delay import forwarder
from services.delay.held import HeldRecords, onward
from services.planner.schedules import clockwork
from services.planner.state.cancels import Cancels
from services.planner.state.runs import LastRuns
from shared.contracts.schedule import Missed
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.mutants.kept import holding_nothing
from tests.support.cluster.mutants.mixes import CALM

Patching = pytest.MonkeyPatch
SCHEDULED = {"scheduled": 1.0, "single": 1.0}
DELAYED = {"delayed": 1.0}
ABSENT = FaultMix(kill=0.8, down_seconds=(3.0, 6.0), only=("planner",), jobs=20, seconds=12.0)
"""Long enough for runs to be missed."""
TAKEN_OVER = FaultMix(stop=0.6, only=("planner",), jobs=30, seconds=12.0)


def _last_run_not_kept(patching: Patching) -> None:
    holding_nothing(patching, "runs")


def _last_runs_forgotten(patching: Patching) -> None:
    patching.setattr(LastRuns, "restore", lambda *_: None)


class _Everyone:
    """The number of whoever asks."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


def _run_begun_by_every_home(patching: Patching) -> None:
    patching.setattr(clockwork, "partition_of", lambda *_: _Everyone())


def _as_if(missed: Missed) -> Any:
    original = clockwork.due_runs

    def due_runs(entry: Any, last: float, now: float) -> list[float]:
        schedule = entry.schedule.model_copy(update={"missed": missed})
        return original(type(entry)(schedule, entry.cron), last, now)

    return due_runs


def _missed_runs_always_begin(patching: Patching) -> None:
    patching.setattr(clockwork, "due_runs", _as_if(Missed.ALL))


def _missed_runs_left_out(patching: Patching) -> None:
    patching.setattr(clockwork, "due_runs", _as_if(Missed.SKIP))


def _run_ids_by_chance(patching: Patching) -> None:
    numbers = iter(range(10**9))
    patching.setattr(clockwork, "run_id", lambda *_: f"s_chance{next(numbers)}")


def _sent_on_early(patching: Patching) -> None:
    original = HeldRecords.take
    patching.setattr(HeldRecords, "take", lambda self, now, limit: original(self, now + 2.0, limit))
    patching.setattr(forwarder, "onward", lambda waiter, topics, now: onward(waiter, topics, now + 2.0))


def _cancel_before_the_job_ignored(patching: Patching) -> None:
    patching.setattr(Cancels, "guessed", lambda *_: False)


def _cancels_forgotten(patching: Patching) -> None:
    patching.setattr(Cancels, "restore", lambda *_: None)


MUTANTS: dict[str, dict[str, Any]] = {
    "last run of a schedule not kept": {
        "patch": _last_run_not_kept,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": CALM,
        "kinds": SCHEDULED,
    },
    "last runs forgotten at take-over": {
        "patch": _last_runs_forgotten,
        "breaks": "each run of a schedule once",
        "seed": 21,
        "mix": TAKEN_OVER,
        "kinds": SCHEDULED,
    },
    "a run begun by every home": {
        "patch": _run_begun_by_every_home,
        "breaks": "each run of a schedule once",
        "mix": CALM,
        "kinds": SCHEDULED,
    },
    "missed runs always begin": {
        "patch": _missed_runs_always_begin,
        "breaks": "missed runs are as the policy says",
        "mix": ABSENT,
        "kinds": SCHEDULED,
    },
    "missed runs left out": {"patch": _missed_runs_left_out, "breaks": "each run of a schedule once", "mix": ABSENT, "kinds": SCHEDULED},
    "run ids by chance": {"patch": _run_ids_by_chance, "breaks": "each run of a schedule once", "mix": CALM, "kinds": SCHEDULED},
    "a delayed message sent on early": {"patch": _sent_on_early, "breaks": "nothing delayed is early", "mix": CALM, "kinds": DELAYED},
    "a cancel before its job ignored": {
        "patch": _cancel_before_the_job_ignored,
        "breaks": "what was cancelled does not run",
        "mix": CALM,
        "kinds": DELAYED,
    },
    "cancels of delayed jobs forgotten at take-over": {
        "patch": _cancels_forgotten,
        "breaks": "what was cancelled does not run",
        "mix": TAKEN_OVER,
        "kinds": DELAYED,
    },
}
