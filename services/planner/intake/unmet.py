"""Unmet: cancels on `jobs.*` that nobody knows the job of. Each may be ahead of its job, so it is kept as a guess (`state/cancels`).

After a while without the job its sender is told, by a dead letter: a cancel that is lost in silence costs money. The guess stays.
The position does not pass the cancel's record until then, so a successor tells what this planner could not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from shared.contracts.base import PriorityClass
from shared.errors import InvalidInput
from shared.kafka.port import Record

SECONDS = 5.0
"""How long the job may be behind its cancel before somebody is told."""


class UnknownJob(InvalidInput):
    """Nobody knows the job of this cancel."""

    code = "unknown_job"

    def __init__(self) -> None:
        super().__init__(
            "no job of this id is here or was lately (of one that waits for its not_before nothing is); if it comes within 7 days it is"
            " cancelled. The key of a cancel is the job's id as `results` shows it (of a tenant other than default: tenant/id), not another"
            " key that the job's record had"
        )


class _Waiting(NamedTuple):
    record: Record
    priority_class: PriorityClass
    job: str
    until: float


class Unmet:
    """By topic, in the order of arrival, which is that of offsets and of their time. Monotonic seconds."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Waiting]] = {}

    def add(self, record: Record, priority_class: PriorityClass, job: str, now: float) -> None:
        """Its job is not known."""
        self._waiting.setdefault(record.topic, deque()).append(_Waiting(record, priority_class, job, now + SECONDS))

    def over(self, now: float, known: Callable[[str, float], bool]) -> list[_Waiting]:
        """Those whose time is over and whose job has not come (`known`: whether it is here, or was)."""
        found = []
        for waiting in self._waiting.values():
            while waiting and waiting[0].until <= now:
                one = waiting.popleft()
                if not known(one.job, now):
                    found.append(one)
        return found

    @property
    def next_due(self) -> float:
        """When to look again."""
        return min((waiting[0].until for waiting in self._waiting.values() if waiting), default=inf)

    def clamp(self, positions: dict[str, int]) -> dict[str, int]:
        """Positions that do not pass what waits."""
        first = {topic: waiting[0].record.offset for topic, waiting in self._waiting.items() if waiting}
        return positions | {topic: min(positions.get(topic, offset), offset) for topic, offset in first.items()}
