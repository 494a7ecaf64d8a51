"""LastRuns: the last run of each schedule of a home, as an event that is kept. Pure."""

from __future__ import annotations

from collections.abc import Container
from math import inf

from services.planner.kept import Kind
from services.planner.round import Round
from shared.contracts.event import ScheduleFired


class LastRuns:
    """Schedule → its last ScheduleFired. Bounded by the number of schedules."""

    def __init__(self) -> None:
        self.kept = Kind[str, ScheduleFired]("runs", self._again, events={ScheduleFired: self.restore})

    def last(self, schedule: str) -> float:
        """When the last run was due; -inf when there was none."""
        event = self.kept.things.get(schedule)
        return -inf if event is None else event.due_at

    def add(self, round_: Round, event: ScheduleFired, group: str | None = None) -> None:
        """A new run. `group`: its job, whose events follow."""
        self.kept.things[event.schedule] = event
        self.kept.tell(round_, group or f"#schedule/{event.schedule}", event, event.schedule)

    def restore(self, event: ScheduleFired, offset: int, _: float) -> None:
        """One found in replay."""
        if event.due_at >= self.last(event.schedule):
            self.kept.things[event.schedule] = event
            self.kept.lies(event.schedule, event.at, offset)

    def forget_others(self, schedules: Container[str]) -> None:
        """Those that are no longer declared. Declared again, they begin anew: `since` is later."""
        for name in [name for name in self.kept.things if name not in schedules]:
            self.kept.drop(name)

    def _again(self, round_: Round, epoch: int, schedule: str) -> bool:
        self.add(round_, self.kept.things[schedule].model_copy(update={"epoch": epoch, "at": round_.wall}))
        return True
