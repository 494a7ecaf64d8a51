"""Soft limits: history warns once of each limit that is near; depth, cost estimates and caps of the tenant."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.budgets.rules import Prices, micros
from services.planner.job.limits import SOFT, capped, depth_of
from services.planner.state.policy import Policy
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.event import EVENT, LimitNeared
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.usage import Usage
from shared.patterns.context import Context
from shared.patterns.port import Pattern
from tests.unit.planner.desk import Desk, claimed, failed, published, succeeded, two_steps
from tests.unit.planner.test_limits import asks


def warnings(desk: Desk) -> list[LimitNeared]:
    return [e for e in (EVENT.validate_json(value) for _, value in desk.history) if isinstance(e, LimitNeared)]


def test_a_near_limit_is_told_once() -> None:
    """At 80 % of the calls, and not again at 100 %."""
    desk = Desk()
    desk.submit(**two_steps(limits={"calls": 5, "steps": 100, "attempts": 10}))
    for _ in range(3):
        assert warnings(desk) == []
        desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step))
        desk.wait(40.0)
    assert [(w.limit, w.used, w.bound) for w in warnings(desk)] == [("calls", 4, 5)]
    desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step))
    assert len(warnings(desk)) == 1


def test_a_successor_does_not_tell_it_again() -> None:
    """What was told is part of the fold."""
    desk = Desk()
    desk.submit(**two_steps(limits={"tokens": 300}))
    assert [w.limit for w in warnings(desk)] == ["tokens"]
    desk.take_over()
    desk.say(claimed(desk.job, desk.step))
    assert [w.limit for w in warnings(desk)] == ["tokens"]


def test_the_fraction_is_the_jobs_own() -> None:
    """`soft` replaces the documented 0.8."""
    assert SOFT == 0.8
    desk = Desk()
    desk.submit(**two_steps(limits={"steps": 2, "soft": 0.5}))
    assert [(w.limit, w.used) for w in warnings(desk)] == [("steps", 1)]


def test_wall_time_is_told_when_it_is_near() -> None:
    """By a timer, and after it the hard limit ends the job with the best answer so far."""
    desk = Desk()
    desk.submit(**two_steps(limits={"wall_seconds": 10}))
    desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step, "half"))
    desk.wait(7.9)
    assert warnings(desk) == []
    desk.wait(0.2)
    assert [w.limit for w in warnings(desk)] == ["wall_seconds"]
    desk.take_over()
    desk.wait(0.5)
    assert len(warnings(desk)) == 1
    [result] = published(desk.wait(1.5))
    assert (result.answer.text, result.answer.finish_reason) == ("half", FinishReason.BUDGET)


@pytest.mark.parametrize("ahead", [-180.0, 0.0, 180.0])
def test_wall_time_is_told_by_the_watch_that_wakes_the_planner(ahead: float) -> None:
    """Also where the wall clock is minutes off: else the timer would stay due, and the planner go round without a pause."""
    desk = Desk()
    desk.submit(**two_steps(limits={"wall_seconds": 10}))
    desk.wall += ahead
    desk.wait(7.9)
    assert warnings(desk) == []
    desk.wait(0.2)
    assert [w.limit for w in warnings(desk)] == ["wall_seconds"]


def costly(desk: Desk, cost: float) -> Any:
    outcome = succeeded(desk.job, desk.step)
    return outcome.model_copy(update={"usage": Usage(calls=1, prompt_tokens=50, completion_tokens=50, cost=cost)})


def test_cost_is_estimated_once_a_price_is_known() -> None:
    """The second step would cost more than what is left: it is refused before dispatch, not after."""
    desk = Desk()
    desk.submit(**two_steps(limits={"cost": 1.0}))
    [result] = published(desk.say(costly(desk, 0.5)))
    assert result.answer.finish_reason is FinishReason.BUDGET
    assert result.usage.cost == 0.5
    desk.submit(**two_steps(limits={"cost": 3.0}))
    assert desk.step.reserved_micros == micros(0.005 * desk.step.reserved_tokens)
    desk.take_over()
    assert desk.job.reserved_micros > 0
    assert published(desk.say(costly(desk, 0.5))) == []


def test_depth_bounds_gathers_in_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step inside more gathers than the limit is refused."""

    async def deep(ctx: Context, job: Job, ask: object) -> Answer:
        branch: Any = asks(ctx, 1)[0]
        for _ in range(3):
            branch = ctx.gather(branch)
        await branch
        return Answer(text="deep")

    pattern = Pattern("test", 1, deep)
    monkeypatch.setattr("tests.unit.planner.desk.EXTRA", (pattern,))
    desk = Desk(Policy(limits=Limits(depth=2)))
    [result] = published(desk.submit(prompt="q", pattern="test"))
    assert (result.failure.kind, result.failure.message) == (FailureKind.LIMIT, "the job's limit of 2 depth is reached")
    desk = Desk(Policy(limits=Limits(depth=3)))
    assert published(desk.submit(prompt="q", pattern="test")) == []
    assert depth_of(desk.step.path) == 3


def test_a_cap_only_lowers() -> None:
    """What a caller asks for never exceeds the tenant's cap; what he leaves out is the cap."""
    caps = Limits(calls=10, cost=1.0)
    assert capped(Limits(calls=100, tokens=5), caps) == Limits(calls=10, tokens=5, cost=1.0)
    assert capped(Limits(calls=3, cost=0.5), caps) == Limits(calls=3, cost=0.5)
    assert capped(Limits(calls=3), Limits()) == Limits(calls=3)


def test_prices_keep_the_highest_and_are_bounded() -> None:
    """A later cheaper call does not lower the estimate; free calls teach nothing."""
    prices = Prices()
    prices.learn("m", Usage(calls=1, prompt_tokens=10, completion_tokens=10, cost=0.2))
    prices.learn("m", Usage(calls=1, prompt_tokens=10, completion_tokens=10, cost=0.1))
    prices.learn("free", Usage(calls=1, prompt_tokens=10))
    assert (prices.estimate_micros("m", 100), prices.estimate_micros("free", 100)) == (1_000_000, 0)
    for number in range(300):
        prices.learn(f"m{number}", Usage(calls=1, prompt_tokens=1, cost=0.1))
    assert prices.estimate_micros("m", 100) == 0
