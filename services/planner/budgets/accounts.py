"""Accounts: what the owner of a tenant's budget has granted to which home, by day (decision 0007). No I/O.

Each serial of a home is decided once; the decision is an event before it is an answer. The newest event of an account is all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce

from services.planner.budgets.rules import NOTHING, BudgetPolicy, Dimension, bounds, day_of, decide, neared, plus, recent
from services.planner.draft import Draft, Tell
from services.planner.kept import Kind
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
)
from shared.telemetry import logs, metrics

log = logs.get(__name__)

Key = tuple[str, int]


@dataclass(slots=True)
class Account:
    """One tenant's day."""

    shares: dict[int, Share] = field(default_factory=dict)
    alerted: tuple[str, ...] = ()

    def granted(self) -> Amounts:
        return reduce(plus, (share.total for share in self.shares.values()), NOTHING)


class Accounts:
    """Those of one partition, by (tenant, day); those of past days are dropped."""

    def __init__(self, policy: BudgetPolicy, tenants: Mapping[str, TenantLimits]) -> None:
        self._tenants = tenants
        self.kept = Kind[Key, Account](
            "accounts", self._again, tidy=self._tidy, distance=policy.distance, events={TenantAccount: self.restore}
        )
        self._accounts = self.kept.things
        self._changed: dict[Key, None] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def get(self, tenant: str, day: int) -> Account | None:
        return self._accounts.get((tenant, day))

    def on_requested(self, draft: Draft, asked: BudgetRequested) -> None:
        """Decide a new serial, answer one that is decided. An account that is no longer kept is not begun anew."""
        if not recent(asked.day, day_of(draft.wall)):
            log.warning("budget_of_another_day", tenant=asked.tenant, day=asked.day)
            return
        account = self._accounts.setdefault((asked.tenant, asked.day), Account())
        share = account.shares.get(asked.home) or Share(home=asked.home, serial=0, total=NOTHING)
        limited = bounds(self._tenants.get(asked.tenant), asked.day)
        others = [other for home, other in account.shares.items() if home != asked.home]
        short: tuple[Dimension, ...] = ()
        if asked.serial == share.serial + 1:
            total, short = decide(limited, others, share.total, asked.least, gives_back=asked.gives_back)
            share = Share(home=asked.home, serial=asked.serial, total=total, used=asked.used)
            account.shares[asked.home] = share
            self._changed[asked.tenant, asked.day] = None
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

    def flush(self, draft: Draft, may: Callable[[str], bool] = lambda _: True) -> None:
        """The events of what changed in this round; alerts before the account that holds that they were raised.

        `may`: whether a tenant's may be written.
        """
        for tenant, day in self._changed:
            account = self._accounts.get((tenant, day))
            if account is None or not may(tenant):
                continue
            group = f"#account/{tenant}/{day}"
            for limit, granted, bound in self._news(tenant, day, account):
                log.warning("tenant_limit_neared", tenant=tenant, limit=limit)
                metrics.LIMITS_NEARED.labels("tenant", limit).inc()
                account.alerted = (*account.alerted, limit)
                near = TenantLimitNeared(
                    epoch=draft.epoch, tenant=tenant, day=day, at=draft.wall, limit=limit, granted=granted, bound=bound
                )
                draft.add(group, near, ledger=True)
            shares = tuple(account.shares.values())
            state = TenantAccount(epoch=draft.epoch, tenant=tenant, day=day, at=draft.wall, shares=shares, alerted=account.alerted)
            self.kept.tell(draft, group, state, (tenant, day), ledger=True)
        self._changed.clear()

    def _news(self, tenant: str, day: int, account: Account) -> Iterator[tuple[str, float, float]]:
        limits = self._tenants.get(tenant)
        if limits is None or day == ALWAYS:
            return
        for near in neared(limits, bounds(limits, day), account.granted()):
            if near[0] not in account.alerted:
                yield near

    # History

    def restore(self, event: TenantAccount, offset: int, _: float) -> None:
        """In replay: the newest is the whole account."""
        key = event.tenant, event.day
        self._accounts[key] = Account({share.home: share for share in event.shares}, event.alerted)
        self.kept.lies(key, event.at, offset)

    def _again(self, _draft: Draft, key: Key) -> bool:
        self._changed[key] = None
        return True

    def _tidy(self, draft: Draft) -> None:
        """Drop past days."""
        for key in [key for key in self._accounts if not recent(key[1], day_of(draft.wall))]:
            self.kept.drop(key)


def _holders(others: list[Share], short: tuple[Dimension, ...], day: int) -> list[int]:
    """Homes that may hold what is short: concurrent jobs end without a word, of a day's amounts homes tell what they use."""
    return [
        share.home for share in others if any(getattr(share.total, d) > (0 if day == ALWAYS else getattr(share.used, d)) for d in short)
    ]
