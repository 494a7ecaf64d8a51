"""Shares: what this home holds of its tenants' budgets, what it has used and reserved of it (decision 0007). No I/O, no jobs.

An attempt begins only where its estimate fits into what is held. `used` and `total` are events, absolute; what is reserved follows from
the open attempts and is counted anew after a take-over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.planner.budgets.rules import (
    DIMENSIONS,
    NOTHING,
    BudgetPolicy,
    Dimension,
    bounds,
    drop_past_days,
    highest,
    lacking,
    lowest,
    minus,
    plus,
    reached,
)
from services.planner.draft import Draft, Tell
from services.planner.kept import Changing
from shared.contracts.budget import ALWAYS, Amounts, BudgetGranted, BudgetRecalled, BudgetRequested, TenantLimits, TenantShare
from shared.contracts.failure import Failure
from shared.telemetry import logs

log = logs.get(__name__)

Key = tuple[str, int]
Wants = list[tuple["_Purse", Amounts]]


@dataclass(slots=True)
class _Purse:
    """This home's share of one tenant's day."""

    tenant: str
    day: int
    serial: int = 0
    """The last decision known."""
    total: Amounts = NOTHING
    used: Amounts = NOTHING
    reserved: Amounts = NOTHING
    needs: Amounts = NOTHING
    """Of the steps that wait."""
    gives_back: bool = False
    """Recorded, and not yet confirmed by the owner."""
    asked_at: float | None = None
    """Monotonic; a request is under way."""
    low: Amounts | None = NOTHING
    """With less than this left, more is asked for ahead of need: half of what a grant leaves (None until those that waited have begun)."""
    short: tuple[str, ...] = ()
    elsewhere: bool = False
    """Of the owner's last answer."""
    limits: TenantLimits | None = None
    """In force at that answer: others make it worthless."""
    quiet_until: float = -math.inf
    """Monotonic; until then a short answer is believed, and nothing is asked for."""
    touched_at: float = 0.0

    @property
    def spent(self) -> Amounts:
        return plus(self.used, self.reserved)

    @property
    def left(self) -> Amounts:
        return minus(self.total, self.spent)


class Shares:
    """Those of one home, by (tenant, day); those of past days are dropped."""

    def __init__(self, home: int, policy: BudgetPolicy, tenants: Mapping[str, TenantLimits]) -> None:
        self._home, self._policy, self._tenants = home, policy, tenants
        self.kept = Changing[Key, _Purse](
            "shares",
            TenantShare,
            "#share/{}/{}",
            named=lambda event: (event.tenant, event.day),
            read=lambda event, _: _Purse(
                event.tenant, event.day, serial=event.serial, total=event.total, used=event.used, gives_back=event.gives_back
            ),
            state=_state,
            tidy=lambda draft: drop_past_days(self.kept, draft),
            distance=policy.distance,
        )
        self._purses = self.kept.things
        self.attention: dict[str, None] = {}
        """Tenants of which something changed in this round."""

    def __len__(self) -> int:
        return len(self._purses)

    def get(self, tenant: str, day: int) -> _Purse | None:
        return self._purses.get((tenant, day))

    def of(self, tenant: str) -> list[_Purse]:
        return [purse for purse in self._purses.values() if purse.tenant == tenant]

    def purse(self, tenant: str, day: int, now: float) -> _Purse:
        """The purse, empty when it is new."""
        found = self._purses.get((tenant, day))
        if found is None:
            found = self._purses[tenant, day] = _Purse(tenant, day, touched_at=now)
        return found

    # Spending

    def lacking(self, wants: Wants) -> Wants:
        """Those that do not fit into what is held."""
        return [(purse, need) for purse, need in wants if lacking(purse.total, purse.spent, need, self._bounds(purse))]

    def reserve(self, wants: Wants, now: float) -> None:
        """For an attempt that begins."""
        for purse, need in wants:
            purse.reserved = plus(purse.reserved, need)
            purse.touched_at = now
            self.attention[purse.tenant] = None

    def release(self, purse: _Purse, reserved: Amounts, used: Amounts) -> None:
        """An attempt is over: settle what it took."""
        purse.reserved = minus(purse.reserved, reserved)
        if used != NOTHING:
            purse.used = plus(purse.used, used)
            self.kept.touch((purse.tenant, purse.day))
        self.attention[purse.tenant] = None

    def refused(self, purse: _Purse, need: Amounts, draft: Draft) -> Failure | None:
        """Why there is no point in waiting, or None. Concurrent jobs end, so waiting for one is never pointless."""
        believed = draft.now < purse.quiet_until and not purse.elsewhere and purse.limits is self._tenants.get(purse.tenant)
        return self.exhausted(purse, need, draft) if believed and purse.day != ALWAYS else None

    def exhausted(self, purse: _Purse, need: Amounts, draft: Draft) -> Failure | None:
        """What is lacking of which the owner last said that there is no more, or None."""
        limited = self._bounds(purse)
        for dimension in lacking(purse.total, purse.spent, need, limited):
            if dimension in purse.short:
                return reached(dimension, limited[dimension], getattr(need, dimension), draft.wall)
        return None

    def _bounds(self, purse: _Purse) -> dict[Dimension, int]:
        return bounds(self._tenants.get(purse.tenant), purse.day)

    # Messages

    def on_granted(self, now: float, answer: BudgetGranted) -> None:
        """Only the answer to what is asked now counts. With another serial it tells that one side has lost its ledger: the owner's is the
        one, and what this home knows that it has used stays used.
        """
        purse = self._purses.get((answer.tenant, answer.day))
        if purse is None or (answer.asked or answer.serial) != purse.serial + 1:
            return
        if answer.serial != purse.serial + 1:
            log.warning("budget_ledgers_differ", tenant=answer.tenant, home=self._home, asked=answer.asked, recorded=answer.serial)
            purse.used = highest(purse.used, answer.used)
        purse.serial, purse.total, purse.gives_back, purse.asked_at = answer.serial, answer.total, False, None
        purse.short, purse.elsewhere, purse.limits = answer.short, answer.elsewhere, self._tenants.get(answer.tenant)
        if purse.short:
            patience = self._policy.poll_seconds if purse.elsewhere or purse.day == ALWAYS else self._policy.recheck_seconds
            purse.quiet_until = now + patience
        purse.low = None
        self.kept.touch((purse.tenant, purse.day))
        self.attention[purse.tenant] = None

    def on_recalled(self, draft: Draft, asked: BudgetRecalled) -> None:
        """Others lack what lies unused here. Asking for it again has to wait, or two homes would send it to and fro for ever."""
        purse = self._purses.get((asked.tenant, asked.day))
        if purse is not None and purse.asked_at is None and self.give_back(draft, purse):
            purse.quiet_until = draft.now + self._policy.poll_seconds
            purse.limits = self._tenants.get(purse.tenant)

    def give_back(self, draft: Draft, purse: _Purse) -> bool:
        """Record that what is unused is held no longer; the owner hears of it after that is acknowledged. False: nothing is unused."""
        if purse.gives_back or purse.left == NOTHING or purse.needs != NOTHING:
            return False
        purse.total = lowest(purse.total, purse.spent)
        purse.gives_back, purse.low = True, NOTHING
        self.kept.touch((purse.tenant, purse.day))
        self.attention[purse.tenant] = None
        return True

    def ask(self, draft: Draft, tenant: str) -> None:
        """Send what this tenant's purses have to ask for; again what was not answered in time."""
        for purse in self.of(tenant):
            purse.low = purse.low or Amounts(**{d: getattr(purse.left, d) // 2 for d in DIMENSIONS})
            waited = math.inf if purse.asked_at is None else draft.now - purse.asked_at
            if waited < self._policy.resend_seconds or not (purse.gives_back or self._asks(purse, draft.now)):
                continue
            purse.asked_at = draft.now
            request = BudgetRequested(
                tenant=tenant,
                day=purse.day,
                home=self._home,
                serial=purse.serial + 1,
                least=purse.total if purse.gives_back else plus(purse.spent, purse.needs),
                used=purse.spent,
                gives_back=purse.gives_back,
            )
            draft.after.append(Tell(None, request))

    def _asks(self, purse: _Purse, now: float) -> bool:
        if purse.asked_at is not None:
            return True
        limited = self._bounds(purse)
        if purse.limits is self._tenants.get(purse.tenant) and (now < purse.quiet_until or (purse.short and purse.needs == NOTHING)):
            return False
        if lacking(purse.total, purse.spent, purse.needs, limited):
            return True
        low = purse.low or NOTHING
        return purse.day != ALWAYS and any(getattr(purse.left, d) < getattr(low, d) for d in limited)

    # Time

    def due_at(self, tenant: str) -> float:
        """When this tenant's purses want attention next, monotonic."""
        return min((self._due_at(purse) for purse in self.of(tenant)), default=math.inf)

    def _due_at(self, purse: _Purse) -> float:
        due = math.inf
        if purse.asked_at is not None:
            due = purse.asked_at + self._policy.resend_seconds
        elif purse.needs != NOTHING:
            due = purse.quiet_until if purse.quiet_until > -math.inf else math.inf
        elif purse.left != NOTHING and not purse.gives_back:
            due = purse.touched_at + self._policy.idle_seconds
        return due

    def on_due(self, draft: Draft, tenant: str) -> None:
        """Give back what lies idle; the rest follows at the end of the round."""
        self.attention[tenant] = None
        for purse in self.of(tenant):
            if purse.asked_at is None and draft.now - purse.touched_at >= self._policy.idle_seconds:
                self.give_back(draft, purse)

    def look_again(self, now: float) -> None:
        """After replay: at every tenant. Nothing has lain idle yet."""
        for purse in self._purses.values():
            purse.touched_at = now
            self.attention[purse.tenant] = None

    def wanted(self, tenant: str, wants: Iterable[Wants]) -> None:
        """Note what the waiting steps need, all together."""
        for purse in self.of(tenant):
            purse.needs = NOTHING
        for each in wants:
            for purse, need in each:
                purse.needs = plus(purse.needs, need)


def _state(draft: Draft, _: Key, purse: _Purse) -> TenantShare:
    return TenantShare(
        epoch=draft.epoch,
        tenant=purse.tenant,
        day=purse.day,
        at=draft.wall,
        serial=purse.serial,
        total=purse.total,
        used=purse.used,
        gives_back=purse.gives_back,
    )
