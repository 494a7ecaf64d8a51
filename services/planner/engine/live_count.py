"""LiveCount: how many live jobs a home holds, of each class and of each tenant in it."""

from __future__ import annotations

from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.event import JobAccepted


class LiveCount:
    """Counted by what `JobAccepted` says. Only tenants with live jobs have an entry."""

    def __init__(self) -> None:
        self.of_class = dict.fromkeys(CLASSES, 0)
        self.of_tenant: dict[tuple[PriorityClass, str], int] = {}

    @property
    def total(self) -> int:
        """Of every class."""
        return sum(self.of_class.values())

    def add(self, job: JobAccepted) -> None:
        """It begins."""
        self._change(job, 1)

    def remove(self, job: JobAccepted) -> None:
        """It has ended."""
        self._change(job, -1)

    def _change(self, job: JobAccepted, by: int) -> None:
        key = (job.priority_class, job.request.tenant)
        self.of_class[job.priority_class] += by
        held = self.of_tenant.get(key, 0) + by
        if held:
            self.of_tenant[key] = held
        else:
            del self.of_tenant[key]
