"""Funds: where jobs meet their tenants' budgets: which attempts may begin, which wait, what an ended one has taken. No I/O.

Jobs of tenants without limits pass with one look into a table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from services.planner.budgets.accounts import Accounts
from services.planner.budgets.rules import NOTHING, ONE_JOB, BudgetPolicy, minus, of_usage, plus
from services.planner.budgets.shares import Shares, Wants
from services.planner.draft import Draft
from services.planner.job.limits import calls_of
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep, Phase
from shared.contracts.base import ClaimId, StepId
from shared.contracts.budget import (
    ALWAYS,
    Amounts,
    BudgetGranted,
    BudgetRecalled,
    BudgetRequested,
    TenantLimits,
    day_of,
)
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.usage import Usage

TIMER = "#tenant/"
"""Before a tenant's name: the key of its timer. No job's id begins so."""
_LATE_CLAIMS = 10_000
_AGAIN_SECONDS = 5.0
"""When a job is worth submitting again that only waited too long."""


class Funding(NamedTuple):
    """Whether an attempt may begin: charged to `day` (None: the tenant has no limits), or it waits for `lacks`, or never."""

    day: int | None = None
    lacks: Wants | None = None
    failure: Failure | None = None


class Funds:
    """Of one home. `tenants` is read when it is needed: administrators change it at any time."""

    def __init__(self, home: int, policy: BudgetPolicy, tenants: Mapping[str, TenantLimits]) -> None:
        self._policy, self.tenants = policy, tenants
        self.shares = Shares(home, policy, tenants)
        self.accounts = Accounts(policy, tenants)
        self.kept = (self.accounts.kept, self.shares.kept)
        self.waiting: dict[str, dict[tuple[str, StepId], None]] = {}
        self._unsaid: OrderedDict[ClaimId, tuple[str, Amounts]] = OrderedDict()
        """Claims that ended without an outcome, newest last: the tenant, and what was charged for want of better. In memory only."""

    @property
    def attention(self) -> bool:
        """Whether something changed in this round."""
        return bool(self.shares.attention or self.shares.kept.changed or self.accounts.kept.changed)

    # Attempts

    def reserve(self, draft: Draft, job: LiveJob, need: Amounts, *, waits: bool = False) -> Funding:
        """Reserve for an attempt that is to begin now, if what this home holds allows. `waits`: it waits already."""
        tenant = job.accepted.request.tenant
        limits = self.tenants.get(tenant)
        if limits is None:
            return Funding()
        day = day_of(draft.wall)
        wants = self._wants(draft, job, limits, day, need)
        lacking = self.shares.lacking(wants)
        if not lacking:
            self.shares.reserve(wants, draft.now)
            return Funding(day)
        for purse, amount in lacking:
            if (refused := self.shares.refused(purse, amount, draft)) is not None:
                return Funding(failure=refused)
        if not waits and len(self.waiting.get(tenant, ())) >= self._policy.waiting:
            return Funding(failure=_limit("tenant.steps", "too many steps of this tenant wait for its budget"))
        return Funding(lacks=lacking)

    def _wants(self, draft: Draft, job: LiveJob, limits: TenantLimits, day: int, need: Amounts) -> Wants:
        tenant = job.accepted.request.tenant
        wants: Wants = []
        if limits.daily:
            wants.append((self.shares.purse(tenant, day, draft.now), need))
        if limits.concurrent_jobs is not None and not job.funded:
            wants.append((self.shares.purse(tenant, ALWAYS, draft.now), ONE_JOB))
        return wants

    def wait(self, draft: Draft, job: LiveJob, step: OpenStep) -> None:
        """The step waits for the tenant's budget, not for ever."""
        step.due_at = draft.now + self._policy.wait_seconds
        tenant = job.accepted.request.tenant
        self.waiting.setdefault(tenant, {})[job.id, step.id] = None
        self.shares.attention[tenant] = None

    def late(self, draft: Draft, job: LiveJob, step: OpenStep) -> Failure:
        """Of a step that has waited as long as it may."""
        limits = self.tenants.get(job.accepted.request.tenant)
        wants = [] if limits is None else self._wants(draft, job, limits, day_of(draft.wall), need_of(step))
        spent = (self.shares.exhausted(purse, amount, draft) for purse, amount in self.shares.lacking(wants))
        unknown = _limit("tenant", "the tenant's budget did not cover the step in time")
        return next((failure for failure in spent if failure is not None), unknown)

    def close(self, draft: Draft, job: LiveJob, step: OpenStep, usage: Usage | None, *, lost: bool = False) -> None:
        """The step's attempt is over. Without `usage` its outcome is not known: what may have run counts as estimated, or, where the claim
        is `lost` and its outcome may still be folded, as nothing.
        """
        tenant = job.accepted.request.tenant
        if step.phase is Phase.UNFUNDED:
            waiting = self.waiting.get(tenant, {})
            waiting.pop((job.id, step.id), None)
        if step.charged_day is None:
            if usage is not None:
                self.waste(draft, job, usage)
            return
        purse = self.shares.get(tenant, step.charged_day)
        if purse is not None:
            charged = of_usage(usage) if usage is not None else need_of(step) if step.phase is Phase.CLAIMED and not lost else NOTHING
            self.shares.release(purse, need_of(step), charged)
            if usage is None and step.claim is not None:
                self._await(step.claim.id, tenant, charged)
        step.charged_day = None

    def _await(self, claim: ClaimId, tenant: str, charged: Amounts) -> None:
        """Its outcome may still come, when nobody knows the job any more."""
        self._unsaid[claim] = (tenant, charged)
        if len(self._unsaid) > _LATE_CLAIMS:
            self._unsaid.popitem(last=False)

    def expect(self, job: LiveJob, claim: ClaimId) -> None:
        """Of an attempt that runs beside one that was paid for."""
        if (tenant := job.accepted.request.tenant) in self.tenants:
            self._await(claim, tenant, NOTHING)

    def late_outcome(self, draft: Draft, claim: ClaimId | None, usage: Usage) -> None:
        """Of a job that is over: what it used beyond what was charged is its tenant's, once."""
        if claim is not None and (known := self._unsaid.pop(claim, None)) is not None:
            self._charge(draft, known[0], minus(of_usage(usage), known[1]))

    def waste(self, draft: Draft, job: LiveJob, usage: Usage, claim: ClaimId | None = None) -> None:
        """Consumed without a reservation."""
        if claim is not None:
            self._unsaid.pop(claim, None)
        tenant = job.accepted.request.tenant
        if tenant in self.tenants:
            self._charge(draft, tenant, of_usage(usage))

    def _charge(self, draft: Draft, tenant: str, used: Amounts) -> None:
        limits = self.tenants.get(tenant)
        if limits is not None and limits.daily and used != NOTHING:
            self.shares.release(self.shares.purse(tenant, day_of(draft.wall), draft.now), NOTHING, used)

    def ended(self, job: LiveJob) -> None:
        """The job runs no longer."""
        purse = self.shares.get(job.accepted.request.tenant, ALWAYS) if job.funded else None
        if purse is not None:
            self.shares.release(purse, ONE_JOB, NOTHING)

    def least_micros(self, job: LiveJob) -> int:
        """What an attempt without a known price reserves of a cost limit: something, so that a home with nothing left begins none."""
        limits = self.tenants.get(job.accepted.request.tenant)
        return 0 if limits is None or limits.cost is None else 1

    # Outcomes and time

    def on_outcome(self, draft: Draft, outcome: BudgetRequested | BudgetGranted | BudgetRecalled) -> None:
        """A message about budgets: to the owner of an account, or to a home."""
        match outcome:
            case BudgetRequested():
                self.accounts.on_requested(draft, outcome)
            case BudgetGranted():
                self.shares.on_granted(draft.now, outcome)
            case BudgetRecalled():
                self.shares.on_recalled(draft, outcome)

    def on_due(self, draft: Draft, key: str) -> None:
        """A tenant's timer fired."""
        if key.startswith(TIMER):
            self.shares.on_due(draft, key.removeprefix(TIMER))

    # History

    def resume(self, job: LiveJob) -> None:
        """After replay: what is reserved follows from the jobs that are open."""
        tenant = job.accepted.request.tenant
        if job.funded and (always := self.shares.get(tenant, ALWAYS)) is not None:
            always.reserved = plus(always.reserved, ONE_JOB)
        for step in (*job.steps.values(), *job.abandoned.values()):
            if step.charged_day is not None and (purse := self.shares.get(tenant, step.charged_day)) is not None:
                purse.reserved = plus(purse.reserved, need_of(step))


def _limit(name: str, message: str) -> Failure:
    return Failure(kind=FailureKind.LIMIT, message=message, limit=name, retry_after_seconds=_AGAIN_SECONDS)


def need_of(step: OpenStep) -> Amounts:
    """What one attempt of the step reserves."""
    calls = 1 if step.request is None else calls_of(step.request)
    return Amounts(calls=calls, tokens=step.reserved_tokens, micros=step.reserved_micros)
