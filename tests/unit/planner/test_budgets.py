"""Budgets of tenants: the owner's decisions and a home's share, as pure rules and on a book without a log."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.budgets.accounts import Accounts
from services.planner.budgets.rules import BudgetPolicy, bounds, decide, neared, of_usage, plus, reached
from services.planner.draft import Draft, Tell
from shared.contracts.budget import ALWAYS, Amounts, BudgetGranted, BudgetRecalled, BudgetRequested, Share, TenantAccount, TenantLimits
from shared.contracts.chat import FinishReason
from shared.contracts.event import EVENT
from shared.contracts.failure import FailureKind
from shared.contracts.result import Status
from shared.contracts.usage import Usage
from tests.unit.planner.desk import Desk, claimed, dispatched, failed, kinds, published, renewed, sent_after, succeeded, two_steps

WALL = 1_700_000_000.0
TODAY = int(WALL // 86_400)
CALL = Amounts(calls=1)


class Cluster:
    """A desk whose requests are answered by an owner's account, as often and as late as a test says."""

    def __init__(self, limits: TenantLimits) -> None:
        self.tenants = {"t": limits}
        self.desk = Desk(tenants=self.tenants)
        self.owner = Accounts(BudgetPolicy(), self.tenants)

    def answers(self, round_: Draft) -> list[Any]:
        """What the owner says to the requests of a round."""
        said = Draft(0, self.desk.wall, self.desk.now)
        for request in requests(round_):
            self.owner.on_requested(said, request)
        return [tell.outcome for tell in said.after if isinstance(tell, Tell) and tell.home == 0]

    def served(self, round_: Draft) -> Draft:
        """The round after the owner's answers."""
        return self.desk.say(*self.answers(round_))


def requests(round_: Draft) -> list[BudgetRequested]:
    return [tell.outcome for tell in round_.after if isinstance(tell, Tell) and isinstance(tell.outcome, BudgetRequested)]


def share_of(home: int, **total: int) -> Share:
    return Share(home=home, serial=1, total=Amounts(**total))


# Rules


@given(
    bound=st.integers(0, 1_000),
    asks=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400), st.booleans()), max_size=40),
)
def test_totals_never_exceed_the_limit(bound: int, asks: list[tuple[int, int, bool]]) -> None:
    """Whatever homes ask for and give back, in any order."""
    held = dict.fromkeys(range(4), Amounts())
    for home, least, back in asks:
        others = [Share(home=other, serial=1, total=total) for other, total in held.items() if other != home]
        decision = decide({"calls": bound}, others, held[home], Amounts(calls=least), gives_back=back)
        assert back is False or decision.total.calls <= held[home].calls
        assert back or decision.total.calls >= held[home].calls
        assert ("calls" in decision.short) == (not back and decision.total.calls < least)
        held[home] = decision.total
        assert sum(total.calls for total in held.values()) <= bound


def test_a_grant_is_a_part_of_what_is_free() -> None:
    """An eighth while there is much, one call at the end."""
    grants, held = [], Amounts()
    for _ in range(60):
        total = decide({"calls": 100}, [], held, plus(held, CALL), gives_back=False).total
        grants.append(total.calls - held.calls)
        held = total
    assert grants[:4] == [12, 11, 9, 8]
    assert sum(grants) == 100


def test_lowering_a_limit_takes_nothing_back_and_grants_no_more() -> None:
    """What is held stays; the sum comes down as it is used or given back."""
    decision = decide({"calls": 5}, [share_of(1, calls=6)], Amounts(calls=3), Amounts(calls=4), gives_back=False)
    assert (decision.total.calls, decision.short) == (3, ("calls",))


def test_what_is_limited() -> None:
    """By days and without days; nothing of a tenant that is not declared."""
    limits = TenantLimits(calls=3, cost=0.5, concurrent_jobs=2)
    assert bounds(limits, TODAY) == {"calls": 3, "micros": 500_000}
    assert bounds(limits, ALWAYS) == {"jobs": 2}
    assert bounds(None, TODAY) == {}
    assert [near[0] for near in neared(limits, bounds(limits, TODAY), Amounts(calls=2, micros=400_000))] == ["cost"]
    assert of_usage(Usage(calls=1, wasted_calls=2, prompt_tokens=3, wasted_tokens=4, cost=0.1)) == Amounts(
        calls=3, tokens=7, micros=100_000
    )


# The owner


def ask(serial: int, least: int, home: int = 0, day: int = TODAY, **more: Any) -> BudgetRequested:
    return BudgetRequested(tenant="t", day=day, home=home, serial=serial, least=Amounts(calls=least), **more)


def told(accounts: Accounts, *asked: BudgetRequested) -> list[Tell]:
    round_ = Draft(0, WALL, 0.0)
    for request in asked:
        accounts.on_requested(round_, request)
    return [effect for effect in round_.after if isinstance(effect, Tell)]


def test_a_reached_limit_says_when_it_is_worth_coming_again() -> None:
    """A day's limit at midnight UTC, concurrent jobs soon; what needs more than the limit allows, never."""
    cost = reached("micros", 500_000, 500_000, WALL)
    assert (cost.kind, cost.limit, cost.message) == (FailureKind.LIMIT, "tenant.cost", "the tenant's limit of 0.5 cost a day is reached")
    assert cost.retry_after_seconds == (TODAY + 1) * 86_400 - WALL
    jobs = reached("jobs", 2, 1, WALL)
    assert (jobs.limit, jobs.message) == ("tenant.jobs", "the tenant's limit of 2 concurrent jobs is reached")
    assert jobs.retry_after_seconds == 5.0
    assert reached("tokens", 40, 41, WALL).retry_after_seconds is None
    assert reached("calls", 0, 1, WALL).retry_after_seconds is None


def test_a_serial_is_decided_once() -> None:
    """A repetition is answered from the record, and so is one that is older: the answer tells what it answers, and no home waits for it."""
    accounts = Accounts(BudgetPolicy(), {"t": TenantLimits(calls=4)})
    first, again = told(accounts, ask(1, 2), ask(1, 4))
    assert first.outcome == again.outcome
    [tell] = told(accounts, ask(2, 3))
    assert (tell.home, tell.outcome.total.calls) == (0, 3)
    [tell] = told(accounts, ask(1, 4))
    assert isinstance(tell.outcome, BudgetGranted)
    assert (tell.outcome.asked, tell.outcome.serial, tell.outcome.total.calls) == (1, 2, 3)


def test_a_successor_answers_as_its_predecessor_did() -> None:
    """The account is the newest event; alerts are not raised again."""
    tenants = {"t": TenantLimits(calls=10)}
    accounts, successor = Accounts(BudgetPolicy(), tenants), Accounts(BudgetPolicy(), tenants)
    [before] = told(accounts, ask(1, 9))
    accounts.kept.flush(round_ := Draft(7, WALL, 0.0))
    [events] = round_.ledger.values()
    assert [kind for kind, _ in events] == ["tenant_limit_neared", "tenant_account"]
    event = EVENT.validate_json(events[-1][1])
    assert isinstance(event, TenantAccount)
    successor.kept.restore(event, 3, 0.0)
    [after] = told(successor, ask(1, 9))
    assert after.outcome == before.outcome
    told(successor, ask(2, 10))
    successor.kept.flush(round_ := Draft(9, WALL, 0.0))
    [events] = round_.ledger.values()
    assert [kind for kind, _ in events] == ["tenant_account"]


def test_who_holds_what_others_lack_is_asked_for_it() -> None:
    """And who told that he used all of it is not."""
    accounts = Accounts(BudgetPolicy(), {"t": TenantLimits(calls=4)})
    told(accounts, ask(1, 2, home=1), ask(1, 2, home=2, used=Amounts(calls=2)))
    grant, recall = told(accounts, ask(1, 1, home=0))
    assert isinstance(grant.outcome, BudgetGranted)
    assert (grant.outcome.short, grant.outcome.elsewhere) == (("calls",), True)
    assert (recall.home, recall.outcome) == (1, BudgetRecalled(tenant="t", day=TODAY))


def test_days_far_away_have_no_account() -> None:
    """Neither is one begun for them, nor kept."""
    accounts = Accounts(BudgetPolicy(), {"t": TenantLimits(calls=4)})
    assert told(accounts, ask(1, 1, day=TODAY + 2), ask(1, 1, day=TODAY - 2)) == []
    told(accounts, ask(1, 1, day=TODAY - 1), ask(1, 1))
    accounts.kept.renew(Draft(0, WALL + 86_400, 0.0), 0, 99)
    assert (accounts.get("t", TODAY - 1), len(accounts)) == (None, 1)


# A home


def test_a_step_goes_out_when_the_tenants_share_covers_it() -> None:
    """Asked, waiting, granted, sent: and charged to the day."""
    cluster = Cluster(TenantLimits(calls=8))
    asked = cluster.desk.submit(prompt="q", tenant="t")
    assert (dispatched(asked), kinds(asked)) == ([], ["job_accepted", "step_asked"])
    granted = cluster.served(asked)
    assert kinds(granted) == ["step_funded"]
    assert [step.attempt for step in sent_after(granted)] == [1]
    assert cluster.desk.step.charged_day == TODAY


def test_the_next_step_takes_what_was_granted_ahead() -> None:
    """No message while the share lasts."""
    cluster = Cluster(TenantLimits(calls=80))
    cluster.served(cluster.desk.submit(prompt="q", tenant="t"))
    round_ = cluster.desk.submit(prompt="q", tenant="t")
    assert len(dispatched(round_)) == 1
    assert requests(round_) == []


def test_a_spent_limit_ends_steps_at_once() -> None:
    """The first learns it from the owner, those after it know; the best answer so far is the result."""
    cluster = Cluster(TenantLimits(calls=1))
    asked = cluster.desk.submit(tenant="t", **two_steps())
    cluster.served(asked)
    second = cluster.desk.say(claimed(cluster.desk.job, cluster.desk.step), succeeded(cluster.desk.job, cluster.desk.step, "half"))
    [result] = published(cluster.served(second))
    assert (result.status, result.answer.text, result.answer.finish_reason) == (Status.SUCCEEDED, "half", FinishReason.BUDGET)
    round_ = cluster.desk.submit(prompt="q", tenant="t")
    [result] = published(round_)
    assert (result.failure.kind, result.failure.message) == (FailureKind.LIMIT, "the tenant's limit of 1 calls a day is reached")
    assert (result.failure.limit, result.failure.retry_after_seconds) == ("tenant.calls", (TODAY + 1) * 86_400 - cluster.desk.wall)
    assert requests(round_) == []
    cluster.desk.wait(6.0)
    assert len(requests(cluster.desk.submit(prompt="q", tenant="t"))) == 1


def test_without_an_answer_the_request_is_repeated_and_then_the_step_ends() -> None:
    """The same serial every two seconds, for thirty."""
    cluster = Cluster(TenantLimits(calls=1))
    cluster.desk.submit(prompt="q", tenant="t")
    repeated = [request.serial for _ in range(9) for request in requests(cluster.desk.wait(3.0))]
    assert repeated == [1] * 9
    [result] = published(cluster.desk.wait(4.0))
    assert (result.failure.message, result.failure.limit) == ("the tenant's budget did not cover the step in time", "tenant")


def test_a_job_that_waited_for_others_of_its_tenant_says_so() -> None:
    """The other one runs on: the limit of concurrent jobs is the reason, and coming again is worth while."""
    cluster = Cluster(TenantLimits(concurrent_jobs=1))
    desk = cluster.desk
    cluster.served(desk.submit(prompt="q", tenant="t"))
    desk.say(claimed(desk.job, desk.step))
    round_ = desk.submit(prompt="q", tenant="t")
    ended = []
    for _ in range(31):
        ended += published(cluster.served(round_))
        desk.say(renewed("c1"))
        round_ = desk.wait(1.0)
        ended += published(round_)
    [result] = ended
    assert (result.failure.limit, result.failure.message) == ("tenant.jobs", "the tenant's limit of 1 concurrent jobs is reached")
    assert result.failure.retry_after_seconds == 5.0


def test_an_answer_that_comes_again_changes_nothing() -> None:
    """Only the serial that is waited for counts."""
    cluster = Cluster(TenantLimits(calls=80))
    answers = cluster.answers(cluster.desk.submit(prompt="q", tenant="t"))
    cluster.desk.say(*answers)
    before = cluster.desk.book.funds.shares.get("t", TODAY)
    assert before is not None
    total = before.total
    cluster.desk.say(*answers, BudgetGranted(tenant="t", day=TODAY, serial=3, total=Amounts(calls=999)))
    assert before.total == total


def test_a_retry_is_charged_too() -> None:
    """Two attempts take two calls; with one allowed the second never goes out."""
    cluster = Cluster(TenantLimits(calls=1))
    cluster.served(cluster.desk.submit(prompt="q", tenant="t"))
    cluster.desk.say(claimed(cluster.desk.job, cluster.desk.step), failed(cluster.desk.job, cluster.desk.step))
    again = cluster.desk.wait(1.0)
    assert (kinds(again), sent_after(again)) == (["step_retried"], [])
    [result] = published(cluster.served(again))
    assert (result.failure.kind, result.usage.wasted_calls) == (FailureKind.LIMIT, 1)


def test_a_successor_knows_what_is_used_reserved_and_waited_for() -> None:
    """Replay gives the same purse, and sends again what was asked."""
    cluster = Cluster(TenantLimits(calls=3))
    desk = cluster.desk
    cluster.served(desk.submit(prompt="a", tenant="t"))
    desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step))
    cluster.served(desk.submit(prompt="b", tenant="t"))
    cluster.served(desk.submit(prompt="c", tenant="t"))
    desk.submit(prompt="d", tenant="t")
    before = desk.book.funds.shares.get("t", TODAY)
    assert before is not None
    round_ = desk.take_over()
    after = desk.book.funds.shares.get("t", TODAY)
    assert after is not None
    assert (after.total, after.used, after.reserved, after.needs) == (before.total, before.used, before.reserved, before.needs)
    assert (after.used.calls, after.reserved.calls, after.needs.calls) == (1, 2, 1)
    assert len(requests(round_)) == 1


def test_what_a_home_gives_back_it_holds_no_longer() -> None:
    """Recorded before it is told, told again by a successor, confirmed by the owner."""
    cluster = Cluster(TenantLimits(calls=80))
    cluster.served(cluster.desk.submit(prompt="q", tenant="t"))
    [request] = requests(cluster.desk.say(BudgetRecalled(tenant="t", day=TODAY)))
    purse = cluster.desk.book.funds.shares.get("t", TODAY)
    assert purse is not None
    assert (request.gives_back, request.least.calls, purse.total.calls) == (True, 1, 1)
    [again] = requests(cluster.desk.take_over())
    assert (again.serial, again.gives_back, again.least) == (request.serial, True, request.least)


def test_what_was_called_back_is_not_asked_for_at_once() -> None:
    """Two homes that lack the same would send it to and fro without end."""
    cluster = Cluster(TenantLimits(calls=80))
    cluster.served(cluster.desk.submit(prompt="q", tenant="t"))
    cluster.served(cluster.desk.say(BudgetRecalled(tenant="t", day=TODAY)))
    assert requests(cluster.desk.submit(prompt="q", tenant="t")) == []
    [request] = requests(cluster.desk.wait(1.1))
    assert request.least.calls == 2


def test_an_overshoot_is_covered_before_anything_else() -> None:
    """Three calls of ten tokens that take fifty each: no further one begins, and the limit is passed by what was running."""
    cluster = Cluster(TenantLimits(tokens=40))
    desk = cluster.desk
    body: dict[str, Any] = {"prompt": "q", "tenant": "t", "options": {"max_tokens": 9}}
    for _ in range(3):
        cluster.served(desk.submit(**body))
    jobs = [job for job in desk.book.jobs.values() if job.steps]
    assert len(jobs) == 3
    for job in jobs:
        [step] = job.steps.values()
        outcome = succeeded(job, step)
        cluster.served(desk.say(outcome.model_copy(update={"usage": Usage(calls=1, prompt_tokens=50)})))
    [result] = published(desk.submit(**body))
    assert result.failure.message == "the tenant's limit of 40 tokens a day is reached"
    purse = desk.book.funds.shares.get("t", TODAY)
    assert purse is not None
    assert purse.used.tokens == 150


def test_a_running_step_that_is_abandoned_counts_as_estimated() -> None:
    """Where nobody tells in time what it took."""
    cluster = Cluster(TenantLimits(calls=5))
    desk = cluster.desk
    cluster.served(desk.submit(prompt="q", tenant="t", limits={"wall_seconds": 5}))
    desk.say(claimed(desk.job, desk.step))
    desk.wait(5.1)
    desk.wait(0.6)
    purse = desk.book.funds.shares.get("t", TODAY)
    assert purse is not None
    assert (purse.used.calls, purse.reserved.calls) == (1, 0)


def test_too_many_waiting_steps_are_refused() -> None:
    """Memory is bounded: the hundred and first of a tenant does not wait."""
    cluster = Cluster(TenantLimits(calls=1_000))
    for _ in range(100):
        assert published(cluster.desk.submit(prompt="q", tenant="t")) == []
    [result] = published(cluster.desk.submit(prompt="q", tenant="t"))
    assert (result.failure.message, result.failure.limit) == ("too many steps of this tenant wait for its budget", "tenant.steps")


def test_a_callers_limits_do_not_exceed_the_tenants_caps() -> None:
    """Pinned when the job is accepted."""
    cluster = Cluster(TenantLimits.model_validate({"job": {"calls": 3, "cost": 1.0}}))
    cluster.desk.submit(prompt="q", tenant="t", limits={"calls": 1_000, "cost": 0.5})
    assert (cluster.desk.job.accepted.limits.calls, cluster.desk.job.accepted.limits.cost) == (3, 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_reserved_is_what_open_attempts_hold(seed: int) -> None:
    """After any course of answers, failures and time the sums agree with the open steps."""
    random = Random(seed)
    cluster = Cluster(TenantLimits(calls=30, concurrent_jobs=4))
    desk = cluster.desk
    pending: list[Any] = []
    for number in range(60):
        match random.choice(("submit", "answer", "fail", "wait", "told", "over")):
            case "submit":
                pending += cluster.answers(desk.submit(tenant="t", **two_steps(limits={"attempts": 9})))
            case "answer" | "fail" as what:
                open_ = [(j, s) for j in desk.book.jobs.values() for s in j.steps.values() if s.phase.name in ("ASKED", "CLAIMED")]
                if open_:
                    job, step = random.choice(open_)
                    claim = f"c{number}"
                    end = succeeded(job, step, claim=claim) if what == "answer" else failed(job, step, claim=claim)
                    pending += cluster.answers(desk.say(claimed(job, step, claim), end))
            case "wait":
                pending += cluster.answers(desk.wait(random.uniform(0.0, 8.0)))
            case "told" if pending:
                pending += cluster.answers(desk.say(pending.pop(random.randrange(len(pending)))))
            case "over":
                pending += cluster.answers(desk.take_over())
        jobs = [job for job in desk.book.jobs.values() if job.settled is None]
        purse, always = desk.book.funds.shares.get("t", TODAY), desk.book.funds.shares.get("t", ALWAYS)
        charged = sum(step.charged_day is not None for job in jobs for step in job.steps.values())
        assert (purse.reserved.calls if purse else 0) == charged, seed
        assert (always.reserved.jobs if always else 0) == sum(job.funded for job in jobs) <= 4, seed
        assert purse is None or purse.used.calls + purse.reserved.calls <= 30, seed
