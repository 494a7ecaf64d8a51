"""Book: all that a planner knows of one home: a cache of its history, thrown away and rebuilt from it. A `Round` decides of it.

No I/O, no clock; chance is injected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random

from services.planner.batches.batch_owner import BatchOwner
from services.planner.budgets.rules import Prices
from services.planner.conversations.owner import Conversations
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep
from services.planner.job.out import OutJob
from services.planner.kept import Kept
from services.planner.state.cancels import Cancels
from services.planner.state.durations import Hedging
from services.planner.state.funds import Funds
from services.planner.state.incarnations import Incarnations
from services.planner.state.kept_ids import KeptIds
from services.planner.state.live_count import LiveCount
from services.planner.state.policy import Policy
from services.planner.state.recent_ids import RecentIds
from services.planner.state.runs import LastRuns
from services.planner.state.snapshots import kept_jobs
from services.planner.state.taken import TakenRecords
from services.planner.state.timers import Timers
from services.planner.state.unclaimed import Mailboxes, Unclaimed
from shared.contracts.base import ClaimId, StepId
from shared.contracts.budget import TenantLimits
from shared.contracts.cache import CacheControl
from shared.contracts.event import JobSettled
from shared.contracts.failure import Failure, FailureKind
from shared.processing.tries import Tries
from shared.scheduling.urgency import ExpectedSeconds

OUTCOME_BYTES = 120 * 1024
"""Largest outcome that is folded, and largest answer of a job, as JSON: it is written again in events, in the result, and quoted in
snapshots, which may double it; all of them must fit a record."""


class Book:
    """State of one home: its jobs, timers and claims, and what is kept. A `Round` decides; this class keeps the state consistent."""

    def __init__(
        self, home: int, policy: Policy, random: Random, tenants: Mapping[str, TenantLimits] | None = None, tries: Tries | None = None
    ) -> None:
        """`tenants`: limits that administrators declare, at any time. `tries`: the home's, which outlive the book."""
        self.tries = tries or Tries()
        self.home, self.policy, self.random, self.epoch = home, policy, random, -1
        self.kept_jobs = kept_jobs(self.tries.may)
        self.jobs = self.kept_jobs.things
        self.out: dict[str, OutJob] = {}
        """The result is out; kept until the committed position has passed the job's record, or a bitmap of taken records has it."""
        self.taken = TakenRecords(self.out)
        self.live_count = LiveCount(policy)
        self.expected = ExpectedSeconds()
        """From acceptance to the end; in memory only."""
        self.timers = Timers()
        self.recent_ids = RecentIds(policy.settled_memory_count, policy.settled_memory_seconds)
        self.kept_ids = KeptIds(self.recent_ids)
        self.cancels = Cancels(policy.cancel_guesses, policy.cancelled_delays, self.ends_at)
        self.runs, self.prices = LastRuns(), Prices()
        self.claims: dict[ClaimId, tuple[str, StepId]] = {}
        self.hedging = Hedging(policy.hedge_share, policy.hedge_samples, policy.hedge_least_seconds)
        self.incarnations = Incarnations()
        self.funds = Funds(home, policy.budgets, {} if tenants is None else tenants)
        self.conversations = Conversations(policy.conversations, self.timers.set)
        """Those that are at home here; their jobs may be elsewhere."""
        self.batches = BatchOwner(policy.batches, self.timers.set, self._most_jobs)
        """The same; their lines' jobs may be elsewhere."""
        self.kept = Kept(
            self.kept_jobs, *self.cancels.kept, self.runs, self.kept_ids.kept, self.taken, *self.funds.kept, self.conversations.kept,
            self.batches.kept,
        )  # fmt: skip
        self.unclaimed = Unclaimed(self.find)
        self.mailboxes: Mailboxes | None = None
        """Where steps may be written without a router; not while the book is rebuilt."""
        self.claim_news: dict[str, None] = {}
        """Jobs with claims that are folded and that no event holds yet."""

    def begins_at(self, job_id: str, at: float, offset: int) -> None:
        """Its JobAccepted, made at this wall-clock time, is acknowledged, or was found there."""
        self.kept_jobs.lies(job_id, at, offset)
        self.cancels.met(job_id)

    def knows(self, job_id: str, now: float) -> bool:
        """Whether this job is here, or was lately."""
        return job_id in self.jobs or job_id in self.out or self.recent_ids.find(job_id, now) is not None

    @property
    def live(self) -> int:
        """Live jobs of every class."""
        return self.live_count.jobs

    def find(self, job_id: str, step_id: StepId) -> tuple[LiveJob, OpenStep] | None:
        """The open step of a live job, or None."""
        job = self.jobs.get(job_id)
        step = job.steps.get(step_id) if job is not None else None
        return None if job is None or step is None else (job, step)

    def _most_jobs(self, tenant: str) -> int | None:
        own = self.funds.tenants.get(tenant)
        return None if own is None else own.concurrent_jobs

    def control_of(self, job: LiveJob) -> CacheControl | None:
        """What holds of the job's steps at the cache."""
        request = job.accepted.request
        return self.policy.caching.control_of(request, self.funds.tenants.get(request.tenant))

    def arm(self, job: LiveJob) -> None:
        """Set the job's timer to its earliest due time."""
        due = min(job.deadline_due, job.wall_due)
        if "wall_seconds" not in job.neared:
            due = min(due, job.soft_wall_due)
        for step in job.steps.values():
            due = min(due, step.due_at)
        if job.awaits_turn:
            due = min(due, job.turn_due)
        self.timers.set(job.id, due if job.ending is None else job.ends_due)

    def lease(self, step: OpenStep, now: float, seconds: float) -> None:
        """The claim of this step stands for so long, and is looked at when its node may have been silent for too long."""
        step.leased_until = now + seconds
        step.due_at = min(now + min(seconds, self.policy.node_lost_seconds), step.hedge_at)

    def drop_claim(self, step: OpenStep) -> None:
        """The claim of this step stands no longer."""
        if step.claim is not None:
            self.claims.pop(step.claim.id, None)

    def end(self, job: LiveJob, event: JobSettled) -> None:
        """Fold a settle event, live or in replay."""
        job.apply(event)
        self.live_count.remove(job)
        self.timers.clear(job.id)

    def turn_told(self, job_id: str) -> None:
        """That is acknowledged."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.turn_owed = False
            self._leave(job)

    def line_told(self, job_id: str) -> None:
        """That its batch is told of its end is acknowledged."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.line_owed = False
            self._leave(job)

    def ends_at(self, job_id: str, now: float, offset: int) -> None:
        """Its settle event is acknowledged at `offset`, or was found there; it ended at `now`: monotonic, in replay of the log's time."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.settled_offset = offset
            if job.run.context.said:
                self.policy.beliefs.count(self.home, self.epoch, offset, job.run.context.said)
        if job is None or job.accepted.client_id:
            self.recent_ids.add(job_id, offset, now)
            self.kept_ids.ended(offset)

    def published(self, settled: JobSettled) -> None:
        """The result is acknowledged."""
        job = self.jobs.get(settled.job)
        if job is not None and job.settled is settled:
            job.published = True
            self._leave(job)
        self.cancels.published(settled.job)

    def owe_stops(self, jobs: Iterable[str]) -> None:
        """Each time that a job is named here a stop of one of its attempts is on its way."""
        for job in map(self.jobs.get, jobs):
            if job is not None:
                job.stops_owed += 1

    def stopped(self, job_id: str, release: Callable[[], None]) -> None:
        """One of them is acknowledged."""
        job = self.jobs.get(job_id)
        if job is not None:
            job.stops_owed -= 1
            self._leave(job)
        release()

    def _leave(self, job: LiveJob) -> None:
        """Little is kept of a job that is out: its result, its stops, the ends of its turn and of its line are acknowledged."""
        if job.published and not job.stops_owed and not job.turn_owed and not job.line_owed:
            offset = self.kept_jobs.offset(job.id)
            assert offset is not None, "it is published after its events are acknowledged"
            self.kept_jobs.drop(job.id)
            self.out[job.id] = OutJob.of(job, offset)


def internal() -> Failure:
    """Of a job on which work fails for a reason that is in nobody's rules."""
    return Failure(kind=FailureKind.INTERNAL, message="the planner failed on this job; its log says why")
