"""Ledgers of budgets over weeks: written again by age, healed after the loss of one side, charged by outcomes that come late."""

from __future__ import annotations

import pytest

from services.planner.budgets.accounts import Accounts
from services.planner.budgets.rules import BudgetPolicy
from services.planner.budgets.shares import Shares
from services.planner.draft import Draft
from services.planner.kept import OLDEST_SECONDS
from shared.contracts.budget import ALWAYS, Amounts, BudgetGranted, TenantLimits
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import CancelRequested
from shared.contracts.usage import Usage
from tests.unit.planner.desk import appended, claimed, failed
from tests.unit.planner.test_budgets import TODAY, WALL, Cluster, ask, requests, told


def test_an_owner_that_lost_its_account_begins_anew_with_its_homes() -> None:
    """What the home held is void; what it has used counts against what it is granted then."""
    cluster = Cluster(TenantLimits(calls=4))
    desk = cluster.desk
    cluster.served(desk.submit(prompt="a", tenant="t"))
    cluster.served(desk.submit(prompt="b", tenant="t"))
    cluster.owner = Accounts(BudgetPolicy(), cluster.tenants)
    for _ in range(3):
        round_ = cluster.served(desk.submit(prompt="c", tenant="t"))
        while requests(round_):
            round_ = cluster.served(round_)
    assert len([job for job in desk.book.jobs.values() if job.steps]) == 4, "four calls, those before the loss counted"
    account = cluster.owner.get("t", TODAY)
    assert account is not None
    assert account.granted().calls == 4


def test_a_home_that_lost_its_share_goes_on_from_the_owners_record() -> None:
    """Also with what it once told to have used: a day's limit is not spent twice."""
    cluster = Cluster(TenantLimits(calls=4))
    told(cluster.owner, ask(1, 2), ask(2, 3, used=Amounts(calls=3)))
    cluster.served(cluster.desk.submit(prompt="a", tenant="t"))
    purse = cluster.desk.book.funds.shares.get("t", TODAY)
    assert purse is not None
    assert (purse.serial, purse.total.calls, purse.used.calls) == (2, 3, 3)


@pytest.mark.parametrize("asked", [None, 1, 2, 4])
def test_only_the_answer_to_what_is_asked_now_counts(asked: int | None) -> None:
    """Answers of the past, and those that another life of this home has asked for, are passed over."""
    shares = Shares(0, BudgetPolicy(), {"t": TenantLimits(calls=9)})
    purse = shares.purse("t", TODAY, 0.0)
    purse.serial, purse.total = 2, Amounts(calls=2)
    serial = 2 if asked is None else 7
    shares.on_granted(0.0, BudgetGranted(tenant="t", day=TODAY, serial=serial, asked=asked, total=Amounts(calls=9)))
    assert (purse.serial, purse.total.calls) == (2, 2)


def test_both_ledgers_are_written_again_by_age() -> None:
    """However quiet the log is: retention deletes by age, and concurrent jobs are counted for ever."""
    tenants = {"t": TenantLimits(concurrent_jobs=3)}
    accounts, shares = Accounts(BudgetPolicy(), tenants), Shares(0, BudgetPolicy(), tenants)
    told(accounts, ask(1, 1, day=ALWAYS))
    purse = shares.purse("t", ALWAYS, 0.0)
    shares.release(purse, Amounts(), Amounts(jobs=1))
    for ledger in (accounts, shares):
        written = []
        for later in (0, OLDEST_SECONDS, OLDEST_SECONDS + 1, OLDEST_SECONDS + 2):
            round_ = Draft(1, WALL + later, 0.0)
            ledger.kept.renew(round_, 6, 99)
            ledger.kept.flush(round_)
            written.append(len(appended(round_, 5)))
        assert written == [1, 0, 1, 0]


@pytest.mark.parametrize("way", ["cancel", "lease"])
def test_what_a_late_outcome_used_is_charged_although_the_job_is_gone(way: str) -> None:
    """Once, and only what was not charged before: by the estimate at the end, by nothing where the claim was lost."""
    cluster = Cluster(TenantLimits(tokens=10_000))
    desk = cluster.desk
    cluster.served(desk.submit(prompt="q", tenant="t", options={"max_tokens": 9}))
    job, step = desk.job, desk.step
    desk.say(claimed(job, step))
    attempt = step.attempt
    if way == "lease":
        desk.wait(30.0)
    desk.say(CancelRequested(job=job.id))
    desk.wait(desk.book.policy.cancel_seconds + 1)
    assert job.settled is not None
    late = failed(job, step, FailureKind.CANCELLED).model_copy(
        update={"attempt": attempt, "claim": claimed(job, step).claim, "usage": Usage(calls=1, completion_tokens=500)}
    )
    purse = desk.book.funds.shares.get("t", TODAY)
    for _ in range(2):
        desk.say(late)
        assert purse is not None
        assert purse.used.tokens == 500
