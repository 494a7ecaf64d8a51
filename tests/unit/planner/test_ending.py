"""Ending a job whose attempts run, by a cancel, its deadline or a limit: they are stopped at once, and what they used is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from services.planner.draft import StopAnywhere
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep
from services.planner.round import Round
from services.planner.sending.messages import of_effect
from services.planner.state.book import OUTCOME_BYTES
from services.planner.state.policy import Policy
from shared.contracts.budget import Amounts, BudgetGranted, TenantLimits
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Status
from shared.contracts.step import StepRequest
from shared.contracts.usage import Usage
from shared.patterns.context import Context
from shared.patterns.port import Pattern
from shared.topics import Topics, TopicSettings
from tests.unit.planner.desk import (
    ONE_CALL,
    Desk,
    claimed,
    dispatched,
    failed,
    kinds,
    opened,
    published,
    released,
    routed,
    sent_after,
    stops,
    succeeded,
    two_steps,
)

POLICY = Policy(cancel_seconds=0.5)
WALL = 1_700_000_000.0
DAY = int(WALL) // 86_400
_TOKENS = ONE_CALL.prompt_tokens + ONE_CALL.completion_tokens
WASTED = Usage(wasted_calls=1, wasted_tokens=_TOKENS, cut_off_tokens=_TOKENS)
"""By the caller's own cancel, deadline or limit: his."""
WAYS = ["cancel", "deadline", "wall time"]
STATUS = {"cancel": Status.CANCELLED, "deadline": Status.EXPIRED, "wall time": Status.FAILED}
DECIDED = {"cancel": "cancel_recorded", "deadline": "job_stopped", "wall time": "job_stopped"}


@dataclass
class Ending:
    """A desk whose job's only step ran when the job was made to end."""

    desk: Desk
    job: LiveJob
    step: OpenStep
    begun: Round


def ending(way: str = "cancel", tenants: dict[str, TenantLimits] | None = None, **job: Any) -> Ending:
    desk = Desk(POLICY, tenants=tenants)
    bounds: dict[str, dict[str, object]] = {
        "cancel": {},
        "deadline": {"deadline_at": desk.wall + 10.0},
        "wall time": {"limits": {"wall_seconds": 10.0}},
    }
    desk.submit(**({"prompt": "q"} | job | bounds[way]))
    if tenants:
        desk.say(BudgetGranted(tenant="default", day=DAY, serial=1, total=Amounts(calls=10, tokens=10_000)))
    at = Ending(desk, desk.job, desk.step, Round.of(desk.book, 0, 0))
    desk.say(claimed(at.job, at.step))
    at.begun = desk.say(CancelRequested(job=at.job.id, reason="enough")) if way == "cancel" else desk.wait(10.001)
    return at


@pytest.mark.parametrize("way", WAYS)
def test_what_the_stopped_attempt_used_is_in_the_result(way: str) -> None:
    """As waste: nobody got an answer for it. The decision is history before its worker hears of it."""
    at = ending(way)
    assert kinds(at.begun)[-1] == DECIDED[way]
    assert (stops(at.begun), published(at.begun)) == ([("n1", 1, None)], [])
    round_ = at.desk.say(failed(at.job, at.step, FailureKind.CANCELLED))
    [result] = published(round_)
    assert kinds(round_) == ["work_wasted", "job_settled"]
    assert (result.status, result.usage) == (STATUS[way], WASTED)
    assert stops(round_) == []


@pytest.mark.parametrize("way", WAYS)
def test_the_tenants_budget_is_charged_what_was_used(way: str) -> None:
    """And not the estimate; that counts where nobody says what was used."""
    at = ending(way, {"default": TenantLimits(calls=10, tokens=10_000)})
    at.desk.say(failed(at.job, at.step, FailureKind.CANCELLED))
    purse = at.desk.book.funds.shares.get("default", DAY)
    assert purse is not None
    assert (purse.used, purse.reserved) == (Amounts(calls=1, tokens=15), Amounts())
    at = ending(way, {"default": TenantLimits(calls=10, tokens=10_000)})
    at.desk.wait(0.6)
    purse = at.desk.book.funds.shares.get("default", DAY)
    assert purse is not None
    assert (purse.used.calls, purse.used.tokens > 200, purse.reserved) == (1, True, Amounts())


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_comes_after_the_decision_is_used_up_and_not_used(way: str) -> None:
    """Its pattern asks for nothing more."""
    at = ending(way, **two_steps())
    round_ = at.desk.say(succeeded(at.job, at.step))
    assert kinds(round_) == ["work_wasted", "job_settled"]
    assert published(round_)[0].status is STATUS[way]
    assert dispatched(round_) == sent_after(round_) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_that_says_nothing_delays_the_end_by_a_bound(way: str) -> None:
    """And not by its lease."""
    at = ending(way)
    assert at.desk.wait(0.45).empty
    [result] = published(at.desk.wait(0.1))
    assert (result.status, result.usage) == (STATUS[way], Usage())


@pytest.mark.parametrize("way", WAYS)
def test_the_end_comes_at_most_that_long_after_the_deadline(way: str) -> None:
    """However late the decision, or the planner that takes over."""
    at = ending(way, deadline_at=WALL + 10.2)
    assert at.begun.wall < WALL + 10.1
    at.desk.now, at.desk.wall = at.desk.now + 0.3, at.desk.wall + 0.3
    at.desk.take_over()
    late = WALL + (10.5 if way == "deadline" else 10.7) - at.desk.wall
    if way == "cancel":
        late = 0.5
    assert at.desk.wait(late - 0.02).empty
    assert published(at.desk.wait(0.04))[0].status is STATUS[way]
    at = ending(way, deadline_at=WALL + 10.2)
    at.desk.now, at.desk.wall = at.desk.now + 600.0, at.desk.wall + 600.0
    at.desk.take_over()
    assert published(at.desk.wait(0.0))[0].status is STATUS[way]


@pytest.mark.parametrize("claim", ["other", None])
def test_other_claims_are_counted_and_not_waited_for(claim: str | None) -> None:
    """A duplicate that ends first does not end the wait for the claim that stands."""
    at = ending()
    assert published(at.desk.say(failed(at.job, at.step, FailureKind.CANCELLED, claim=claim))) == []
    [result] = published(at.desk.say(failed(at.job, at.step, FailureKind.CANCELLED)))
    assert result.usage.wasted_calls == 2


def test_a_claim_that_comes_after_the_decision_is_stopped() -> None:
    """It was on its way; the job wants it no more."""
    at = ending()
    assert stops(at.desk.say(claimed(at.job, at.step, "late", node="n2"))) == [("n2", 1, "late")]
    assert stops(at.desk.say(claimed(at.job, at.step))) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_release_ends_the_wait(way: str) -> None:
    """A draining worker gave the step back before the stop came."""
    at = ending(way)
    assert published(at.desk.say(released(at.job, at.step, claim="c1")))[0].status is STATUS[way]


@pytest.mark.parametrize("way", WAYS)
def test_a_take_over_stops_and_waits_anew(way: str) -> None:
    """The decision is history, and so is the claim; an answer that comes to the successor is not used either."""
    at = ending(way, **two_steps())
    round_ = at.desk.take_over()
    assert (stops(round_), published(round_), dispatched(round_)) == ([("n1", 1, None)], [], [])
    round_ = at.desk.say(succeeded(at.job, at.step))
    [result] = published(round_)
    assert (result.status, result.usage.wasted_calls, dispatched(round_)) == (STATUS[way], 1, [])
    at = ending(way)
    at.desk.take_over()
    assert published(at.desk.wait(0.6))[0].status is STATUS[way]


@pytest.mark.parametrize("way", WAYS)
def test_a_snapshot_holds_the_decision(way: str) -> None:
    """A job may be written again while it waits."""
    at = ending(way)
    before = len(at.desk.history)
    at.desk.snapshot(at.job)
    replay, _, round_ = at.desk.replayed(at.desk.history[before:])
    replay.finish()
    assert (stops(round_), dispatched(round_)) == ([("n1", 1, None)], [])


def test_nothing_runs_nothing_is_awaited() -> None:
    """A step that waits somewhere is stopped where it may be, and the job ends at once."""
    desk = opened(POLICY)
    assert published(desk.say(CancelRequested(job=desk.job.id)))[0].status is Status.CANCELLED
    deadlines: tuple[dict[str, Any], ...] = ({"deadline_at": desk.wall + 1.0}, {"deadline_seconds": 1.0})
    for deadline in deadlines:
        desk.submit(prompt="q", **deadline)
        job, step = desk.job, desk.step
        round_ = desk.wait(1.01)
        assert published(round_)[0].status is Status.EXPIRED
        assert not [effect for effect in round_.after if isinstance(effect, StopAnywhere)], "a step carries its deadline itself"
        assert stops(desk.say(claimed(job, step, "late"))) == [("n1", 1, "late")], "and who begins it late is told"


def test_a_step_that_waits_for_a_router_is_stopped_at_every_node() -> None:
    """Nobody knows who will get it; once it is routed only that node is told."""
    desk = opened(POLICY)
    round_ = desk.say(CancelRequested(job=desk.job.id, reason="enough"))
    [everywhere] = [effect for effect in round_.after if isinstance(effect, StopAnywhere)]
    assert (everywhere.control.node, everywhere.control.attempt, everywhere.control.claim) == (None, 1, None)
    topics = Topics(TopicSettings(work_partitions=3))
    assert [message.partition for message in of_effect(everywhere, topics)] == [0, 1, 2]
    desk.submit()
    desk.say(routed(desk.job, desk.step, node="n5"))
    round_ = desk.say(CancelRequested(job=desk.job.id))
    assert not [effect for effect in round_.after if isinstance(effect, StopAnywhere)]


# Branches


async def _pair(ctx: Context, job: Job, ask: object) -> Answer:
    """Two at once; a third after the first, which a limit of two calls refuses."""
    ctx.best(Answer(text="so far"))

    async def two() -> Answer:
        await ctx.ask(StepRequest(prompt="a"))
        return await ctx.ask(StepRequest(prompt="b"))

    found = await ctx.gather(two(), ctx.ask(StepRequest(prompt="c")), quorum=int(job.prompt or 2))
    return next(answer for answer in found if answer is not None)


@pytest.fixture(autouse=True)
def pair_pattern() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        pattern = Pattern("pair", 1, _pair)
        patch.setattr("tests.unit.planner.desk.EXTRA", (pattern,))
        yield


def pair(quorum: int = 2) -> tuple[Desk, LiveJob, OpenStep, OpenStep]:
    """Both steps of a job that may make two calls run; it, like its tenant, has limits."""
    desk = Desk(POLICY, tenants={"default": TenantLimits(calls=10)})
    desk.submit(prompt=str(quorum), pattern="pair", limits={"calls": 2})
    desk.say(BudgetGranted(tenant="default", day=DAY, serial=1, total=Amounts(calls=10)))
    a, c = desk.job.steps.values()
    desk.say(claimed(desk.job, a, "ca"), claimed(desk.job, c, "cc", node="n2"))
    return desk, desk.job, a, c


def test_a_limit_that_ends_the_job_waits_for_its_running_branches() -> None:
    """The best answer so far goes out with the usage of all."""
    desk, job, a, c = pair()
    round_ = desk.say(succeeded(job, a, claim="ca"))
    assert kinds(round_) == ["step_answered", "step_asked", "attempt_failed", "job_stopped"]
    assert (stops(round_), published(round_)) == ([("n2", 1, None)], [])
    [result] = published(desk.say(failed(job, c, FailureKind.CANCELLED, claim="cc", node="n2")))
    assert (result.status, result.answer.finish_reason) == (Status.SUCCEEDED, FinishReason.BUDGET)
    assert result.usage == ONE_CALL.plus(WASTED)
    purse = desk.book.funds.shares.get("default", DAY)
    assert purse is not None
    assert (purse.used.calls, purse.reserved.calls) == (2, 0)


def test_a_success_waits_for_nobody() -> None:
    """An answer is not held back for the sake of accounts: of a branch that is still running the estimate counts."""
    desk, job, _, c = pair(1)
    round_ = desk.say(succeeded(job, c, claim="cc", node="n2"))
    assert (kinds(round_), stops(round_)) == (["step_answered", "job_settled"], [("n1", 1, None)])
    purse = desk.book.funds.shares.get("default", DAY)
    assert purse is not None
    assert (purse.used.calls, purse.reserved.calls) == (2, 0)


def test_what_was_told_before_a_take_over_is_not_awaited_again() -> None:
    """The event that counts what a claim used names the claim."""
    desk, job, a, c = pair()
    desk.say(CancelRequested(job=job.id))
    assert published(desk.say(failed(job, c, FailureKind.CANCELLED, claim="cc", node="n2"))) == []
    round_ = desk.take_over()
    assert stops(round_) == [("n1", 1, None)]
    [result] = published(desk.say(failed(job, a, FailureKind.CANCELLED, claim="ca")))
    assert result.usage.wasted_calls == 2


@pytest.mark.parametrize("characters", ["x", "\x01", "é"])
def test_an_answer_that_no_record_holds_is_a_failure_of_its_job_alone(characters: str) -> None:
    """A pattern may join what each fitted by itself; the home must go on."""

    async def joined(ctx: Context, job: Job, ask: object) -> Answer:
        written = json.dumps(characters, ensure_ascii=False)[1:-1].encode()
        return Answer(text=characters * (OUTCOME_BYTES // len(written) + 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.unit.planner.desk.EXTRA", (Pattern("joined", 1, joined),))
        desk = Desk(POLICY)
    [result] = published(desk.submit(pattern="joined", prompt="q"))
    assert (result.status, result.failure.kind, result.answer) == (Status.FAILED, FailureKind.TOO_LARGE, None)
