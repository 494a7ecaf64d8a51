"""TenantDays: declared limits from the registry, and what this instance has seen granted of each day, from `job-events`. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from pydantic import BaseModel

from shared.contracts.budget import ALWAYS, MICROS, Amounts, TenantAccount
from shared.processing.registry import LimitsByTenant

_ACCOUNTS = 20_000


class Spending(BaseModel):
    """One UTC day of one tenant: what homes hold, and what they last told to have used of it."""

    day: int
    """Since 1970-01-01."""
    granted: dict[str, float]
    used: dict[str, float]


class TenantDays:
    """Newest limits by tenant; newest account by tenant and day."""

    def __init__(self) -> None:
        self.limits = LimitsByTenant()
        self._accounts: OrderedDict[tuple[str, int], TenantAccount] = OrderedDict()

    def on_event(self, kind: str, value: bytes) -> None:
        """An event that is no job's. Raises ValueError when it is not valid."""
        if kind != "tenant_account":
            return
        account = TenantAccount.model_validate_json(value)
        if account.day == ALWAYS:
            return
        self._accounts[account.tenant, account.day] = account
        self._accounts.move_to_end((account.tenant, account.day))
        if len(self._accounts) > _ACCOUNTS:
            self._accounts.popitem(last=False)

    def spending(self, tenant: str, day: int) -> Spending:
        """Of a day; nothing when this instance has seen nothing."""
        account = self._accounts.get((tenant, day))
        shares = () if account is None else account.shares
        return Spending(day=day, granted=_sum(s.total for s in shares), used=_sum(s.used for s in shares))


def _sum(amounts: Iterable[Amounts]) -> dict[str, float]:
    known = list(amounts)
    return {
        "calls": sum(a.calls for a in known),
        "tokens": sum(a.tokens for a in known),
        "cost": sum(a.micros for a in known) / MICROS,
    }
