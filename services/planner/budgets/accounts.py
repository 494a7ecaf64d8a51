"""Accounts: what the owner of a tenant's budget has granted to which home, by day (decision 0007). No I/O.

Each serial of a home is decided once; the decision is an event before it is an answer. The newest event of an account is all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce

from services.planner.budgets.rules import NOTHING, BudgetPolicy, Dimension, bounds, decide, drop_past_days, neared, plus, recent
from services.planner.draft import Draft, Tell
from services.planner.kept import Changing
from shared.contracts.budget import (
    ALWAYS,
    Amounts,
    BudgetGranted,
    BudgetRecalled,
    BudgetRequested,
    Share,
    TenantAccount,
    TenantLimitNeared,
    TenantLimits,
    day_of,
)
from shared.telemetry import logs, metrics

log = logs.get(__name__)

Key = tuple[str, int]


@dataclass(slots=True)
class _Account:
    """One tenant's day."""

    shares: dict[int, Share] = field(default_factory=dict)
    alerted: tuple[str, ...] = ()

    def granted(self) -> Amounts:
        return reduce(plus, (share.total for share in self.shares.values()), NOTHING)


class Accounts:
    """Those of one partition, by (tenant, day); those of past days are dropped."""

    def __init__(self, policy: BudgetPolicy, tenants: Mapping[str, TenantLimits]) -> None:
        self._tenants = tenants
        self.kept = Changing[Key, _Account](
            "accounts",
            TenantAccount,
            "#account/{}/{}",
            named=lambda event: (event.tenant, event.day),
            read=lambda event, _: _Account({share.home: share for share in event.shares}, event.alerted),
            state=self._state,
            tidy=lambda draft: drop_past_days(self.kept, draft),
            distance=policy.distance,
        )
        self._accounts = self.kept.things

    def __len__(self) -> int:
        return len(self._accounts)

    def get(self, tenant: str, day: int) -> _Account | None:
        return self._accounts.get((tenant, day))

    def on_requested(self, draft: Draft, asked: BudgetRequested) -> None:
        """Decide a new serial, answer one that is decided. An account that is no longer kept is not begun anew."""
        if not recent(asked.day, day_of(draft.wall)):
            log.warning("budget_of_another_day", tenant=asked.tenant, day=asked.day)
            return
        account = self._accounts.setdefault((asked.tenant, asked.day), _Account())
        share = account.shares.get(asked.home) or Share(home=asked.home, serial=0, total=NOTHING)
        limited = bounds(self._tenants.get(asked.tenant), asked.day)
        others = [other for home, other in account.shares.items() if home != asked.home]
        short: tuple[Dimension, ...] = ()
        if asked.serial == share.serial + 1:
            total, short = decide(limited, others, share.total, asked.least, gives_back=asked.gives_back)
            share = Share(home=asked.home, serial=asked.serial, total=total, used=asked.used)
            account.shares[asked.home] = share
            self.kept.touch((asked.tenant, asked.day))
        elif asked.serial != share.serial:
            # One side has lost its ledger (retention, a restored topic): the home goes on from what is recorded here.
            log.warning("budget_ledgers_differ", tenant=asked.tenant, home=asked.home, asked=asked.serial, recorded=share.serial)
        holders = _holders(others, short, asked.day)
        answer = BudgetGranted(
            tenant=asked.tenant,
            day=asked.day,
            serial=share.serial,
            asked=asked.serial,
            total=share.total,
            used=share.used,
            short=short,
            elsewhere=bool(holders),
        )
        draft.after.append(Tell(asked.home, answer))
        draft.after.extend(Tell(home, BudgetRecalled(tenant=asked.tenant, day=asked.day)) for home in holders)

    def _state(self, draft: Draft, key: Key, account: _Account) -> TenantAccount:
        """Alerts come before the account that holds that they were raised."""
        about = {"epoch": draft.epoch, "tenant": key[0], "day": key[1], "at": draft.wall}
        for limit, granted, bound in self._news(*key, account):
            log.warning("tenant_limit_neared", tenant=key[0], limit=limit)
            metrics.LIMITS_NEARED.labels("tenant", limit).inc()
            account.alerted = (*account.alerted, limit)
            draft.add(self.kept.key(key), TenantLimitNeared(**about, limit=limit, granted=granted, bound=bound), ledger=True)
        return TenantAccount(**about, shares=tuple(account.shares.values()), alerted=account.alerted)

    def _news(self, tenant: str, day: int, account: _Account) -> Iterator[tuple[str, float, float]]:
        limits = self._tenants.get(tenant)
        if limits is None or day == ALWAYS:
            return
        for near in neared(limits, bounds(limits, day), account.granted()):
            if near[0] not in account.alerted:
                yield near


def _holders(others: list[Share], short: tuple[Dimension, ...], day: int) -> list[int]:
    """Homes that may hold what is short: concurrent jobs end without a word, of a day's amounts homes tell what they use."""
    return [
        share.home for share in others if any(getattr(share.total, d) > (0 if day == ALWAYS else getattr(share.used, d)) for d in short)
    ]
