"""LiveCount: how many places the live jobs of a home take, of each class and of each tenant in it. A large job takes several."""

from __future__ import annotations

from services.planner.job.live import LiveJob
from services.planner.state.policy import Policy
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.event import JobAccepted


class LiveCount:
    """Counted by what `JobAccepted` says. Only tenants with live jobs have an entry."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.jobs = 0
        self.of_class = dict.fromkeys(CLASSES, 0)
        self.of_tenant: dict[tuple[PriorityClass, str], int] = {}

    def add(self, job: LiveJob) -> None:
        """It begins."""
        self.jobs += 1
        self._change(job.accepted, self._policy.places(job.size))

    def keep(self, job: LiveJob, *events: bytes) -> None:
        """More events of the job, as they stand in history."""
        job.facts += events
        before = job.size
        job.size += sum(map(len, events))
        if job.size >= self._policy.live_job_bytes:
            self._change(job.accepted, self._policy.places(job.size) - self._policy.places(before))

    def remove(self, job: LiveJob) -> None:
        """It has ended."""
        self.jobs -= 1
        self._change(job.accepted, -self._policy.places(job.size))

    def _change(self, job: JobAccepted, by: int) -> None:
        key = (job.priority_class, job.request.tenant)
        self.of_class[job.priority_class] += by
        held = self.of_tenant.get(key, 0) + by
        if held:
            self.of_tenant[key] = held
        else:
            del self.of_tenant[key]
