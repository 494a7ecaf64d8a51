"""Due: which runs of a schedule begin now. Pure: a schedule, its last run and the time in, instants out."""

from __future__ import annotations

from math import inf

from shared.contracts.schedule import Missed
from shared.scheduling.schedule_table import ScheduleEntry

MOST_RUNS = 100
"""Of one schedule at once; of more missed runs the oldest are dropped."""


def due_runs(entry: ScheduleEntry, last: float, now: float) -> list[float]:
    """Instants in (last run, now] whose runs begin, in order. `last`: the instant of the last run, -inf when there was none.

    Never one at or before the last run, so a clock that goes back repeats nothing.
    """
    schedule = entry.schedule
    after = max(schedule.since, last)
    if not schedule.enabled or now <= after:
        return []
    in_time = entry.cron.newest(max(after, now - schedule.late_seconds), now, MOST_RUNS)
    if schedule.missed is Missed.ALL:
        return entry.cron.newest(after, now, MOST_RUNS)
    if schedule.missed is Missed.LAST and not in_time:
        return entry.cron.newest(after, now, 1)
    return in_time


def next_run(entry: ScheduleEntry, last: float, now: float) -> float:
    """When to look again; inf for a schedule that is off."""
    if not entry.schedule.enabled:
        return inf
    following = entry.cron.next(max(entry.schedule.since, last, now))
    return inf if following is None else following
