"""LastRuns: the last run of each schedule of a home, as an event that is carried. Pure."""

from __future__ import annotations

from collections.abc import Container
from math import inf

from services.planner.round import Round
from services.planner.state.carried import Carried
from shared.contracts.event import ScheduleFired


class LastRuns:
    """Schedule → its last ScheduleFired. Bounded by the number of schedules."""

    def __init__(self) -> None:
        self._fired = Carried[ScheduleFired]()
        self._schedule_of: dict[str, str] = {}
        """Group of events in a round whose append is not acknowledged → schedule."""

    def last(self, schedule: str) -> float:
        """When the last run was due; -inf when there was none."""
        event = self._fired.get(schedule)
        return -inf if event is None else event.due_at

    def add(self, group: str, event: ScheduleFired) -> None:
        """A new run, whose event is the first of this group."""
        self._fired.put(event.schedule, event)
        self._schedule_of[group] = event.schedule

    def append(self, round_: Round, event: ScheduleFired) -> None:
        """The event alone, without a job."""
        self.add(_append(round_, event), event)

    def restore(self, event: ScheduleFired, offset: int) -> None:
        """One found in replay."""
        if event.due_at >= self.last(event.schedule):
            self._fired.put(event.schedule, event, offset)

    def begins_at(self, group: str, offset: int) -> None:
        """The group's first event is acknowledged at `offset`; a newer run of the schedule may wait for its own."""
        schedule = self._schedule_of.pop(group, None)
        if schedule is not None and schedule not in self._schedule_of.values() and schedule in self._fired:
            self._fired.begins_at(schedule, offset)

    def forget_others(self, schedules: Container[str]) -> None:
        """Those that are no longer declared. Declared again, they begin anew: `since` is later."""
        self._fired.drop_if(lambda name, _: name not in schedules)

    @property
    def lowest(self) -> int | None:
        """Offset that the watermark may not pass."""
        return self._fired.lowest

    def rewrite(self, round_: Round, epoch: int, expected: int, distance: int) -> None:
        """Append those again that hold the watermark too far behind."""
        unacknowledged = set(self._schedule_of.values())
        for schedule, event in self._fired.stale(expected, distance, round_.wall):
            if schedule not in unacknowledged:
                self.append(round_, event.model_copy(update={"epoch": epoch, "at": round_.wall}))


def _append(round_: Round, event: ScheduleFired) -> str:
    group = f"#schedule/{event.schedule}"
    round_.add(group, event)
    round_.firsts[group] = len(round_.events[group]) - 1
    return group
