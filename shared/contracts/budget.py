"""Budgets: what a tenant may consume, and the shares of it that homes hold (decision 0007)."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from shared.contracts.base import (
    DAY_SECONDS,
    MANY,
    Contract,
    Cost,
    Count,
    EpochSeconds,
    Label,
    Offset,
    Ordinal,
    Partition,
    Quantity,
    Tenant,
)
from shared.contracts.cache import TenantCache
from shared.contracts.critique import Policies
from shared.contracts.limits import Limits

KIND = "tenant"
"""Of the entries of limits."""
ALWAYS = 0
"""The day of what is not counted by days: concurrent jobs."""
MICROS = 1_000_000
"""Costs are counted as whole millionths of the cluster's currency: their sums are exact."""


def day_of(wall: float) -> int:
    """The UTC day, counted from 1970-01-01."""
    return int(wall // DAY_SECONDS)


class TenantLimits(Contract):
    """What an administrator declares of a tenant (topic `registry`, key `tenant/<name>`). What is left out is unlimited."""

    model_config = ConfigDict(extra="forbid")

    calls: Count | None = None
    """Model calls per UTC day; so are tokens and cost."""
    tokens: Count | None = None
    cost: Cost | None = None
    """Of 0: nothing runs, since no price is known beforehand."""
    concurrent_jobs: Count | None = None
    """Jobs that run at the same time, on the whole cluster."""
    soft: float = Field(default=0.8, gt=0, le=1)
    """Fraction of a day's limit from which on an alert is raised."""
    job: Limits = Limits()
    """Caps of each job's own limits: what a caller asks for can only lower them."""
    policies: Policies = ()
    """On its inputs and answers. No limit: what is left out checks nothing."""
    cache: TenantCache | None = None
    """Absent: jobs that ask the cache share entries within the tenant, others do not ask."""
    choice: bool | None = None
    """False: for its jobs `auto` is any model and a tier the best of its cards, whatever a step asks. Absent: it is looked at."""

    @property
    def daily(self) -> bool:
        """Whether anything is limited by days."""
        return self.calls is not None or self.tokens is not None or self.cost is not None


class Amounts(Contract):
    """What is reserved, used or granted. `micros`: cost in millionths of the cluster's currency; `jobs`: concurrent ones."""

    calls: Count = 0
    tokens: Count = 0
    micros: Count = 0
    jobs: Count = 0


class Share(Contract):
    """What one home holds. `total` has been granted, `used` is what the home last told; `serial` counts decisions."""

    home: Partition
    serial: Count
    total: Amounts
    used: Amounts = Amounts()


class _Of(Contract):
    tenant: Tenant
    day: Count
    """Days since 1970-01-01 UTC; 0: not counted by days."""


class BudgetRequested(_Of):
    """A home wants to hold at least `least`; with `gives_back`, exactly that. Sent to the owner of the tenant's account."""

    type: Literal["budget_requested"] = "budget_requested"
    home: Partition
    serial: Ordinal
    least: Amounts
    used: Amounts = Amounts()
    """Settled and reserved."""
    gives_back: bool = False


class BudgetGranted(_Of):
    """The owner's decision of `serial`, sent to the home that asked."""

    type: Literal["budget_granted"] = "budget_granted"
    serial: Count
    """0: the owner knows of no share of this home."""
    asked: Ordinal | None = None
    """The serial that the home asked for: another one where one of the two has lost its ledger."""
    total: Amounts
    used: Amounts = Amounts()
    """What the home last told."""
    short: tuple[Label, ...] = Field(default=(), max_length=8)
    """What the limit did not allow: calls, tokens, micros, jobs."""
    elsewhere: bool = False
    """Other homes hold unused shares of it."""


class BudgetRecalled(_Of):
    """The owner asks a home to give back what it does not need."""

    type: Literal["budget_recalled"] = "budget_recalled"


class _Ledger(Contract):
    """A fact of a partition that is no job's. The newest of a tenant and day is the whole state."""

    epoch: Offset
    tenant: Tenant
    day: Count
    at: EpochSeconds


class TenantAccount(_Ledger):
    """The owner's state: every home's share."""

    type: Literal["tenant_account"] = "tenant_account"
    shares: tuple[Share, ...] = Field(max_length=MANY)
    alerted: tuple[Label, ...] = Field(default=(), max_length=8)
    """Limits of which the alert was raised."""


class TenantShare(_Ledger):
    """A home's own share. `used`: settled, without what is reserved. `gives_back`: decision `serial` + 1 is still to be confirmed."""

    type: Literal["tenant_share"] = "tenant_share"
    serial: Count
    total: Amounts
    used: Amounts
    gives_back: bool = False


class TenantLimitNeared(_Ledger):
    """An alert: what is granted to homes has reached the soft fraction of this limit. Once a day."""

    type: Literal["tenant_limit_neared"] = "tenant_limit_neared"
    limit: Label
    """calls, tokens, cost"""
    granted: Quantity
    bound: Quantity
