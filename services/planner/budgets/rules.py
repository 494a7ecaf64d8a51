"""Budgets of tenants: days, amounts, what fits, what is granted, when to warn. Pure (decision 0007).

Prices: what calls of a model have cost, learned from outcomes, to estimate what the next one may cost. No I/O.

Only workers know prices. Until the first outcome of a model the estimate is nothing: a cost limit then holds from that outcome on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, NamedTuple

from services.planner.draft import Draft
from services.planner.kept import Kind
from shared.contracts.base import DAY_SECONDS, at_most
from shared.contracts.budget import ALWAYS, MICROS, Amounts, Share, TenantLimits, day_of
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.usage import Usage

_MODELS = 256


def micros(cost: float) -> int:
    """A cost in millionths, rounded up; at most the largest count."""
    return at_most(ceil(round(cost * MICROS, 3))) if cost else 0


class Prices:
    """The highest price a token seen of each requested model; bounded, the longest unused leaves first."""

    def __init__(self) -> None:
        self._per_token: OrderedDict[str, float] = OrderedDict()

    def learn(self, model: str, usage: Usage) -> None:
        """An outcome of a step that asked for `model`."""
        tokens = usage.prompt_tokens + usage.completion_tokens
        if not usage.cost or not tokens:
            return
        self._per_token[model] = max(usage.cost / tokens, self._per_token.get(model, 0.0))
        self._per_token.move_to_end(model)
        if len(self._per_token) > _MODELS:
            self._per_token.popitem(last=False)

    def estimate_micros(self, model: str, tokens: int) -> int:
        """What a step of so many tokens may cost; 0 where no price is known."""
        return micros(self._per_token.get(model, 0.0) * tokens)


Dimension = Literal["calls", "tokens", "micros", "jobs"]
DIMENSIONS: tuple[Dimension, ...] = ("calls", "tokens", "micros", "jobs")
NOTHING = Amounts()
ONE_JOB = Amounts(jobs=1)
_JOB_SECONDS = 5.0
"""When it is worth coming again while all concurrent jobs run."""
_PARTS = 8
"""A grant is at least this part of what is free: few messages, and shares that shrink as the limit comes near."""
DAYS_APART = 1
"""How far the days of two machines may lie apart."""


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """Durations in seconds."""

    wait_seconds: float = 30.0
    """Longest wait of a step for its tenant's budget: covers the take-over of the owner's partition."""
    waiting: int = 100
    """Steps of one tenant that may wait in one home."""
    resend_seconds: float = 2.0
    poll_seconds: float = 1.0
    """How soon a home asks again when others hold what it lacks."""
    recheck_seconds: float = 5.0
    """How long a spent limit is believed without a message."""
    idle_seconds: float = 30.0
    """An unused share is given back after this."""
    distance: int = 2_000
    """A ledger event further behind the end than this many records is written again, so that the watermark may pass it."""


class _Deal(NamedTuple):
    """What a home holds from now on, and what its limit did not allow."""

    total: Amounts
    short: tuple[Dimension, ...]


def recent(day: int, today: int) -> bool:
    """Whether an account of this day is kept: by a machine whose own day is `today`."""
    return day == ALWAYS or abs(day - today) <= DAYS_APART


def drop_past_days(kept: Kind[tuple[str, int], Any], draft: Draft) -> None:
    """Of a ledger by (tenant, day)."""
    today = day_of(draft.wall)
    for key in [key for key in kept.things if not recent(key[1], today)]:
        kept.drop(key)


def bounds(limits: TenantLimits | None, day: int) -> dict[Dimension, int]:
    """What is limited, and how much of it there is."""
    if limits is None:
        return {}
    if day == ALWAYS:
        return {} if limits.concurrent_jobs is None else {"jobs": limits.concurrent_jobs}
    given: tuple[tuple[Dimension, int | None], ...] = (
        ("calls", limits.calls),
        ("tokens", limits.tokens),
        ("micros", None if limits.cost is None else micros(limits.cost)),
    )
    return {dimension: bound for dimension, bound in given if bound is not None}


def plus(left: Amounts, right: Amounts) -> Amounts:
    """At most the largest count of each: what tenants' outcomes say may not stop the account."""
    return Amounts(
        calls=at_most(left.calls + right.calls),
        tokens=at_most(left.tokens + right.tokens),
        micros=at_most(left.micros + right.micros),
        jobs=at_most(left.jobs + right.jobs),
    )


def minus(left: Amounts, right: Amounts) -> Amounts:
    """Never below nothing."""
    return Amounts(
        calls=max(0, left.calls - right.calls),
        tokens=max(0, left.tokens - right.tokens),
        micros=max(0, left.micros - right.micros),
        jobs=max(0, left.jobs - right.jobs),
    )


def lowest(left: Amounts, right: Amounts) -> Amounts:
    """The smaller of each."""
    return Amounts(**{d: min(getattr(left, d), getattr(right, d)) for d in DIMENSIONS})


def highest(left: Amounts, right: Amounts) -> Amounts:
    """The larger of each."""
    return Amounts(**{d: max(getattr(left, d), getattr(right, d)) for d in DIMENSIONS})


def of_usage(usage: Usage) -> Amounts:
    """What an outcome settles: failed and wasted calls count like others."""
    return Amounts(
        calls=at_most(usage.calls + usage.wasted_calls),
        tokens=at_most(usage.prompt_tokens + usage.completion_tokens + usage.wasted_tokens),
        micros=micros(usage.cost),
    )


def lacking(total: Amounts, spent: Amounts, need: Amounts, limited: Collection[Dimension]) -> list[Dimension]:
    """Of what is limited, what `total` does not hold beside what is spent. A debt is lacking too: it must be covered first."""
    return [d for d in limited if getattr(spent, d) + getattr(need, d) > getattr(total, d)]


def decide(limited: Mapping[Dimension, int], others: Iterable[Share], held: Amounts, least: Amounts, *, gives_back: bool) -> _Deal:
    """The owner's answer to one home. The totals of all homes together never grow beyond a limit."""
    if gives_back:
        return _Deal(lowest(held, least), ())
    shares = list(others)
    total: dict[str, int] = {}
    short: list[Dimension] = []
    for dimension in DIMENSIONS:
        holds, wants = getattr(held, dimension), getattr(least, dimension)
        if dimension not in limited:
            total[dimension] = max(holds, wants)
            continue
        free = max(0, limited[dimension] - holds - sum(getattr(share.total, dimension) for share in shares))
        total[dimension] = holds + min(free, max(wants - holds, free // _PARTS))
        if total[dimension] < wants:
            short.append(dimension)
    return _Deal(Amounts(**total), tuple(short))


def neared(limits: TenantLimits, limited: Mapping[Dimension, int], granted: Amounts) -> list[tuple[str, float, float]]:
    """(limit, granted, bound) of each limit of the day whose soft fraction is granted."""
    found = []
    for dimension, bound in limited.items():
        used = getattr(granted, dimension)
        if bound and dimension != "jobs" and used >= limits.soft * bound:
            unit = MICROS if dimension == "micros" else 1
            found.append((named(dimension), used / unit, bound / unit))
    return found


def named(dimension: Dimension) -> str:
    """The limit's name for people."""
    return {"micros": "cost", "jobs": "concurrent jobs"}.get(dimension, dimension)


def reached(dimension: Dimension, bound: int, need: int, wall: float) -> Failure:
    """Of a step that does not fit. A day's limit is whole again at midnight UTC, a running job may end any moment; what needs more than
    the limit never fits.
    """
    amount = f"{bound / MICROS:g}" if dimension == "micros" else str(bound)
    again = _JOB_SECONDS if dimension == "jobs" else (day_of(wall) + 1) * DAY_SECONDS - wall
    return Failure(
        kind=FailureKind.LIMIT,
        message=f"the tenant's limit of {amount} {named(dimension)}{'' if dimension == 'jobs' else ' a day'} is reached",
        limit="tenant." + {"micros": "cost"}.get(dimension, dimension),
        retry_after_seconds=again if need <= bound else None,
    )
