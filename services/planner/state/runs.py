"""LastRuns: the last run of each schedule of a home, as an event that is kept. Pure."""

from __future__ import annotations

from collections.abc import Container
from math import inf

from services.planner.kept import KeptEvents
from shared.contracts.event import ScheduleFired


class LastRuns(KeptEvents[ScheduleFired]):
    """Schedule → its last ScheduleFired. Bounded by the number of schedules."""

    def __init__(self) -> None:
        super().__init__("runs", ScheduleFired, "schedule", key="#schedule/{}")

    def last(self, schedule: str) -> float:
        """When the last run was due; -inf when there was none."""
        event = self.things.get(schedule)
        return -inf if event is None else event.due_at

    def restore(self, event: ScheduleFired, offset: int, written: float) -> None:
        """One found in replay."""
        if event.due_at >= self.last(event.schedule):
            super().restore(event, offset, written)

    def forget_others(self, schedules: Container[str]) -> None:
        """Those that are no longer declared. Declared again, they begin anew: `since` is later."""
        for name in [name for name in self.things if name not in schedules]:
            self.drop(name)
