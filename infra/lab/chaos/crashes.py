"""Crashes: processes that ended by themselves, or did not end when told, and which of them are no defect. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PATIENCE_SECONDS = 60.0
"""So long a service must wait for a broker that is away; after that it may end and be started anew."""


@dataclass(frozen=True, slots=True)
class Crash:
    """Monotonic seconds; `what`: the end of its log, or what it did not do."""

    process: str
    at: float
    what: str

    def __str__(self) -> str:
        return f"{self.process}: {self.what}"


@dataclass(frozen=True, slots=True)
class Absence:
    """The broker was away from `since` until it served again."""

    since: float
    until: float


def excused(crash: Crash, absences: Iterable[Absence]) -> bool:
    """Whether the broker had been away beyond a service's patience; also shortly afterwards, since ending takes its time."""
    return any(
        min(crash.at, absence.until) - absence.since >= PATIENCE_SECONDS and crash.at <= absence.until + PATIENCE_SECONDS
        for absence in absences
    )


def defects(crashes: Iterable[Crash], absences: Sequence[Absence]) -> list[Crash]:
    """Those that nothing excuses."""
    return [crash for crash in crashes if not excused(crash, absences)]
