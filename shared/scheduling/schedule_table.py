"""ScheduleTable: the schedules that the registry declares, as a service holds them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from shared.contracts.bounds import check_capability
from shared.contracts.schedule import Schedule
from shared.errors import InvalidInput
from shared.scheduling.cron import Cron

MOST = 1_000
"""Schedules of a cluster: each planner holds all of them."""


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """A schedule and its expression, parsed."""

    schedule: Schedule
    cron: Cron


class ScheduleTable:
    """Fed by a RegistryReader. `offered`: capabilities of the cluster. `changed` is called after each change."""

    def __init__(self, offered: Collection[str], changed: Callable[[], None] = lambda: None) -> None:
        self._offered = offered
        self.entries: dict[str, ScheduleEntry] = {}
        self.version = 0
        """Grows with each change."""
        self.complete: Callable[[], bool] = lambda: False
        """Whether all that was declared when reading began is here."""
        self._changed = changed

    def apply(self, kind: str, name: str, value: bytes | None) -> None:
        """One entry of the registry. Raises ValueError for one that is not a schedule; what was there before stays."""
        if value is None:
            self.entries.pop(name, None)
        else:
            self.put(Schedule.model_validate_json(value))
        self.version += 1
        self._changed()

    def put(self, schedule: Schedule) -> None:
        """Raises ValueError."""
        if schedule.id not in self.entries and len(self.entries) >= MOST:
            raise ValueError(f"more than {MOST} schedules")
        try:
            check_capability(schedule.job, self._offered)
            self.entries[schedule.id] = ScheduleEntry(schedule, Cron(schedule.cron, schedule.time_zone))
        except InvalidInput as error:
            raise ValueError(error.message) from None
