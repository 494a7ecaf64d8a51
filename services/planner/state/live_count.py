"""LiveCount: how many places the live jobs of a home take, of each class and of each tenant in it. A large job takes several."""

from __future__ import annotations

from services.planner.job.live import LiveJob
from services.planner.state.policy import Policy
from shared.contracts.base import CLASSES, PriorityClass


class LiveCount:
    """Counted by what `JobAccepted` says. Only tenants with live jobs have an entry.

    A job that only waits (for people, for its own timers) takes none of these places, as long as there is room for such jobs; beyond it,
    it keeps its own. When it goes on it has one again whatever the room: fewer are taken in then.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.jobs = 0
        """That take places."""
        self.waiting = 0
        """Places that those who only wait would take."""
        self.of_class = dict.fromkeys(CLASSES, 0)
        self.of_tenant: dict[tuple[PriorityClass, str], int] = {}

    def add(self, job: LiveJob) -> None:
        """It begins."""
        self.jobs += 1
        self._change(job, self._policy.places(job.size))

    def keep(self, job: LiveJob, *events: bytes) -> None:
        """More events of the job, as they stand in history. Once it has ended its places are given back, whatever is written."""
        job.facts += events
        before = job.size
        job.size += sum(map(len, events))
        if job.size >= self._policy.live_job_bytes and job.settled is None:
            self._change(job, self._policy.places(job.size) - self._policy.places(before))

    def remove(self, job: LiveJob) -> None:
        """It has ended."""
        self.jobs -= job.placed
        self._change(job, -self._policy.places(job.size))

    def rest(self, job: LiveJob, *, waits: bool) -> None:
        """It only waits from now on, or goes on."""
        if waits == (not job.placed) or (waits and self.waiting + self._policy.places(job.size) > self._policy.waiting_places):
            return
        self.remove(job)
        job.placed = not waits
        self.jobs += job.placed
        self._change(job, self._policy.places(job.size))

    def _change(self, job: LiveJob, by: int) -> None:
        accepted = job.accepted
        if not job.placed:
            self.waiting += by
            return
        key = (accepted.priority_class, accepted.request.tenant)
        self.of_class[accepted.priority_class] += by
        held = self.of_tenant.get(key, 0) + by
        if held:
            self.of_tenant[key] = held
        else:
            del self.of_tenant[key]
