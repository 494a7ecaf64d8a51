"""Budgets of tenants, by decision 0007: what homes hold together is within the limit, what they hold was granted, an attempt begins only
where its estimate fits, what was used is never forgotten, and no more jobs run at once than may.

Looked at after each append: inside one, what ended and what began because of it are in any order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from shared.contracts.budget import ALWAYS, TenantAccount, TenantLimits, TenantShare
from shared.contracts.event import (
    AttemptFailed,
    CancelRecorded,
    JobAccepted,
    JobSettled,
    JobStopped,
    StepAnswered,
    StepAsked,
    StepFunded,
    StepRetried,
    WorkWasted,
)
from shared.contracts.usage import Usage
from tests.support.cluster import settings
from tests.support.cluster.history import Written
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "budgets are never exceeded"
_LIMITED = ("calls", "tokens")
Spent = dict[str, int]


def check(world: World) -> Iterator[Violation]:
    """Over every valid event of every home, in order of time."""
    tenants = {w.value.job: w.value.request.tenant for w in world.history.all_valid() if isinstance(w.value, JobAccepted)}
    books = {tenant: _Book(tenant, limits) for tenant, limits in settings.LIMITED.items()}
    events = sorted(world.history.all_valid(), key=lambda written: (written.at, written.where.partition))
    for (_, home), append in groupby(events, key=lambda written: (written.at, written.where.partition)):
        by_tenant: dict[str, list[Written]] = defaultdict(list)
        for written in append:
            tenant = getattr(written.value, "tenant", None) or tenants.get(getattr(written.value, "job", ""))
            if tenant in books:
                by_tenant[tenant].append(written)
        for tenant, found in by_tenant.items():
            yield from books[tenant].fold(home, [written.value for written in found])


@dataclass(slots=True)
class _Home:
    """What one home's history says of one tenant."""

    total: Spent = field(default_factory=lambda: dict.fromkeys((*_LIMITED, "jobs"), 0))
    used: Spent = field(default_factory=lambda: dict.fromkeys(_LIMITED, 0))
    told: Spent = field(default_factory=lambda: dict.fromkeys(_LIMITED, 0))
    """Usage in events of jobs."""
    estimates: dict[str, int] = field(default_factory=dict)
    """step → tokens that an attempt of it reserves"""
    reserved: dict[str, str] = field(default_factory=dict)
    """step → job, of attempts that run"""
    running: set[str] = field(default_factory=set)
    """Jobs that have begun and not ended."""


@dataclass(slots=True)
class _Book:
    tenant: str
    limits: TenantLimits
    homes: dict[int, _Home] = field(default_factory=lambda: defaultdict(_Home))
    granted: dict[int, Spent] = field(default_factory=lambda: defaultdict(lambda: dict.fromkeys((*_LIMITED, "jobs"), 0)))
    """The account: home → what it may hold"""
    accepted: Spent = field(default_factory=lambda: dict.fromkeys(_LIMITED, 0))
    beyond: Spent = field(default_factory=lambda: dict.fromkeys(_LIMITED, 0))
    """What accepted attempts took beyond their estimates."""

    def fold(self, number: int, events: Sequence[Any]) -> Iterator[Violation]:
        home, begun, beyond = self.homes[number], False, dict.fromkeys(_LIMITED, 0)
        for event in events:
            if isinstance(event, TenantAccount):
                self._account(event)
            elif isinstance(event, TenantShare):
                self._share(home, event)
            elif isinstance(event, StepAnswered | AttemptFailed | WorkWasted):
                self._used(home, event, beyond)
            elif isinstance(event, StepAsked | StepRetried | StepFunded):
                if isinstance(event, StepAsked):
                    home.estimates[event.step] = event.reserved_tokens
                if event.charged_day is not None:
                    begun = True
                    home.reserved[event.step] = event.job
                    home.running.add(event.job)
            elif isinstance(event, CancelRecorded | JobStopped | JobSettled):
                # What still runs of the job may be reserved for a moment longer: that makes this checker too mild, never too strict.
                home.reserved = {step: job for step, job in home.reserved.items() if job != event.job}
                if isinstance(event, JobSettled):
                    home.running.discard(event.job)
        yield from self._within()
        yield from self._covered(number, home, beyond if begun else None)

    def _account(self, event: TenantAccount) -> None:
        dimensions = ("jobs",) if event.day == ALWAYS else _LIMITED
        for share in event.shares:
            self.granted[share.home] |= {dimension: getattr(share.total, dimension) for dimension in dimensions}
        for number in self.granted.keys() - {share.home for share in event.shares}:
            self.granted[number] |= dict.fromkeys(dimensions, 0)

    @staticmethod
    def _share(home: _Home, event: TenantShare) -> None:
        if event.day == ALWAYS:
            home.total["jobs"] = event.total.jobs
        else:
            home.total |= {dimension: getattr(event.total, dimension) for dimension in _LIMITED}
            home.used = {dimension: getattr(event.used, dimension) for dimension in _LIMITED}

    def _used(self, home: _Home, event: StepAnswered | AttemptFailed | WorkWasted, beyond: Spent) -> None:
        reserves = home.reserved.pop(event.step, None) is not None
        estimate = {"calls": 1, "tokens": home.estimates.get(event.step, 0)} if reserves else dict.fromkeys(_LIMITED, 0)
        for dimension, amount in _amounts(event.usage).items():
            more = max(0, amount - estimate[dimension])
            home.told[dimension] += amount
            beyond[dimension] += more
            if isinstance(event, StepAnswered):
                self.accepted[dimension] += amount
                self.beyond[dimension] += more if dimension == "tokens" else 0

    def _within(self) -> Iterator[Violation]:
        """Of the whole cluster."""
        bounds = {"calls": self.limits.calls, "tokens": self.limits.tokens, "jobs": self.limits.concurrent_jobs}
        for dimension, bound in bounds.items():
            granted = sum(given[dimension] for given in self.granted.values())
            if bound is not None and granted > bound:
                yield self._broken(f"{granted} {dimension} are granted, of {bound}")
            accepted, beyond = self.accepted.get(dimension, 0), self.beyond.get(dimension, 0)
            if bound is not None and accepted > bound + beyond:
                yield self._broken(f"{accepted} {dimension} were accepted, of {bound}")
        running = sum(len(home.running) for home in self.homes.values())
        if self.limits.concurrent_jobs is not None and running > self.limits.concurrent_jobs:
            yield self._broken(f"{running} jobs run at once, of {self.limits.concurrent_jobs}")

    def _covered(self, number: int, home: _Home, beyond: Spent | None) -> Iterator[Violation]:
        """Of one home. `beyond`: an attempt began in this append, and so much more than estimated was used in it."""
        for dimension, total in home.total.items():
            if total > self.granted[number][dimension]:
                granted = self.granted[number][dimension]
                yield self._broken(f"home {number} holds {total} {dimension}; it was granted {granted}")
        if not self.limits.daily:
            return
        reserved = {"calls": len(home.reserved), "tokens": sum(home.estimates.get(step, 0) for step in home.reserved)}
        for dimension in _LIMITED:
            used, told = home.used[dimension], home.told[dimension]
            if used < told:
                yield self._broken(f"home {number} counts {used} {dimension} as used; its jobs have used {told}")
            limited = getattr(self.limits, dimension) is not None
            if limited and beyond is not None and used + reserved[dimension] > home.total[dimension] + beyond[dimension]:
                spent = f"{used} used and {reserved[dimension]} reserved"
                yield self._broken(f"home {number} began an attempt with {spent}, and holds {home.total[dimension]} {dimension}")

    def _broken(self, message: str) -> Violation:
        return Violation(LAW, f"tenant {self.tenant}: {message}")


def _amounts(usage: Usage) -> Spent:
    """Failed and wasted calls count like others."""
    return {
        "calls": usage.calls + usage.wasted_calls,
        "tokens": usage.prompt_tokens + usage.completion_tokens + usage.wasted_tokens,
    }
