"""Which runs begin: every one once, missed ones by the schedule's policy, none again when a clock goes back."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.planner.schedules.clockwork import MOST_RUNS, due_runs, next_run
from shared.contracts.job import Job
from shared.contracts.schedule import Missed, Schedule
from shared.scheduling.cron import Cron
from shared.scheduling.schedule_table import ScheduleEntry

START = 1_767_225_600.0
"""2026-01-01 00:00 UTC."""


def entry(cron: str = "*/10 * * * *", zone: str = "UTC", **changes: Any) -> ScheduleEntry:
    schedule = Schedule(id="s", cron=cron, time_zone=zone, job=Job(prompt="q"), **{"since": START, **changes})
    return ScheduleEntry(schedule, Cron(cron, zone))


def walk(it: ScheduleEntry, moments: list[float]) -> list[float]:
    """What begins when the planner looks at these moments."""
    last, begun = -inf, []
    for now in moments:
        for due in due_runs(it, last, now):
            begun.append(due)
            last = due
    return begun


def test_a_run_begins_when_it_is_due() -> None:
    """Not before, and not the one at which the schedule was declared."""
    it = entry()
    assert walk(it, [START, START + 599.9, START + 600.0, START + 600.0, START + 610.0]) == [START + 600.0]
    assert next_run(it, START + 600.0, START + 600.0) == START + 1_200.0


def test_missed_runs() -> None:
    """An hour without a planner: none, the newest, or all of six."""
    now = START + 3_700.0
    assert walk(entry(missed="skip"), [now]) == []
    assert walk(entry(missed="last"), [now]) == [START + 3_600.0]
    assert walk(entry(missed="all"), [now]) == [START + 600.0 * n for n in range(1, 7)]


def test_a_run_that_is_a_little_late_was_not_missed() -> None:
    """A take-over takes seconds: within `late_seconds` each policy runs it, and then nothing older."""
    for missed in ("skip", "last"):
        assert walk(entry(missed=missed), [START + 3_650.0]) == [START + 3_600.0]


def test_all_is_bounded() -> None:
    """The newest of them."""
    runs = walk(entry("* * * * *", missed="all"), [START + 86_400.0])
    assert len(runs) == MOST_RUNS
    assert runs[-1] == START + 86_400.0


def test_off_is_off() -> None:
    """And what was due meanwhile is not missed when it is on again: `since` is then the moment of that."""
    assert due_runs(entry(enabled=False), -inf, START + 86_400.0) == []
    assert next_run(entry(enabled=False), -inf, START) == inf
    assert walk(entry(missed="all", since=START + 86_400.0), [START + 86_500.0]) == []


moments = st.lists(st.floats(0.0, 20_000.0), min_size=1, max_size=40)
kinds = st.sampled_from(list(Missed))


@settings(max_examples=25)
@given(moments, kinds, st.sampled_from(("UTC", "Europe/Berlin")))
def test_nothing_begins_twice_whatever_the_clock_does(seconds: list[float], missed: Missed, zone: str) -> None:
    """Moments in any order: a clock that goes back, or jumps."""
    begun = walk(entry("*/7 * * * *", zone, missed=missed), [START + s for s in seconds])
    assert all(a < b for a, b in pairwise(begun))
    assert all(due <= START + max(seconds) for due in begun)


@settings(max_examples=15)
@given(moments, kinds)
def test_who_looks_often_enough_misses_nothing(seconds: list[float], missed: Missed) -> None:
    """Looked at every minute, and at other moments: each run once, by every policy."""
    looks = sorted([*seconds, *(float(n) for n in range(0, 4_000, 50))])
    begun = walk(entry(missed=missed), [START + s for s in looks])
    assert [due for due in begun if due < START + 4_000.0] == [START + 600.0 * n for n in range(1, 7)]


@settings(max_examples=25)
@given(moments)
def test_all_means_all(seconds: list[float]) -> None:
    """However seldom: what was due until the last look has begun (here never more than the bound at once)."""
    begun = walk(entry(missed="all"), [START + s for s in sorted(seconds)])
    assert begun == [START + 600.0 * n for n in range(1, 34) if 600.0 * n <= max(seconds)]


@settings(max_examples=25)
@given(st.floats(0.0, 1e7), kinds, st.sampled_from(("*/7 * * * *", "30 2 * * *")))
def test_the_next_look_is_when_something_is_due(offset: float, missed: Missed, cron: str) -> None:
    """Just before it nothing begins, at it something does."""
    it, now = entry(cron, "Europe/Berlin", missed=missed), START + offset
    last = (due_runs(it, -inf, now) or [-inf])[-1]
    upcoming = next_run(it, last, now)
    assert due_runs(it, max(last, now), upcoming - 0.001) == []
    assert due_runs(it, max(last, now), upcoming) == [upcoming]
