"""Limits: what a job may spend, reserved before dispatch, settled after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.planner.job.limits import STEP_BYTES, estimate_tokens, filled
from services.planner.state.policy import Policy
from shared.contracts.base import RECORD_BYTES
from shared.contracts.chat import Answer, FinishReason, Options
from shared.contracts.event import AttemptFailed
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Status
from shared.contracts.step import StepRequest
from shared.patterns.context import Context, StepError
from shared.patterns.port import Pattern
from shared.scheduling.lengths import PromptLengths
from shared.scheduling.retry import RetryPolicy
from tests.unit.planner.desk import Desk, claimed, dispatched, failed, kinds, last, published, succeeded, two_steps


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Context], Awaitable[Any]]], None]:
    """Make a body the pattern `test`."""

    def patch(body: Callable[[Context], Awaitable[Any]]) -> None:
        async def run(ctx: Context, job: Job, ask: object) -> Answer:
            answer: Answer = await body(ctx)
            return answer

        pattern = Pattern("test", 1, run)
        monkeypatch.setattr("tests.unit.planner.desk.EXTRA", (pattern,))

    return patch


def asks(ctx: Context, count: int) -> list[Any]:
    return [ctx.ask(StepRequest(prompt=f"q{number}")) for number in range(count)]


def finish_step(desk: Desk) -> Any:
    return desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step, "half"))


@pytest.mark.parametrize(
    ("limits", "named"),
    [({"calls": 1}, "1 calls"), ({"steps": 1}, "1 steps"), ({"tokens": 270}, "270 tokens"), ({"cost": 0.0}, "cost 0.0")],
)
def test_at_a_limit_the_best_answer_so_far_is_the_result(limits: dict[str, Any], named: str) -> None:
    """The second step is refused before dispatch; what the first gave is the answer, with finish reason budget."""
    desk = Desk()
    desk.submit(**two_steps(limits=limits))
    outcome = succeeded(desk.job, desk.step, "half")
    costly = outcome.model_copy(update={"usage": outcome.usage.model_copy(update={"cost": 0.5})})
    round_ = desk.say(costly)
    [result] = published(round_)
    assert dispatched(round_) == []
    assert (result.status, result.answer.text, result.answer.finish_reason) == (Status.SUCCEEDED, "half", FinishReason.BUDGET)
    assert kinds(round_) == ["step_answered", "step_asked", "attempt_failed", "job_settled"]
    refused = last(desk, AttemptFailed)
    assert isinstance(refused, AttemptFailed)
    assert (refused.failure.message, refused.failure.limit) == (f"the job's limit of {named} is reached", next(iter(limits)))


def test_the_first_step_may_be_refused() -> None:
    """Without any answer the failure is the result."""
    desk = Desk()
    [result] = published(desk.submit(prompt="q" * 4_000, limits={"tokens": 1_000}))
    assert (result.status, result.failure.kind) == (Status.FAILED, FailureKind.LIMIT)


def test_width_bounds_the_steps_that_are_open_at_once(use: Any) -> None:
    """A gather of more than the width: what is beyond it is refused, what is below it runs."""

    async def wide(ctx: Context) -> Answer:
        found = await ctx.gather(*asks(ctx, 4), quorum=2)
        return Answer(text=str(len([answer for answer in found if answer])))

    use(wide)
    desk = Desk(Policy(limits=Limits(width=3)))
    round_ = desk.submit(prompt="q", pattern="test")
    assert len(dispatched(round_)) == 3
    assert kinds(round_) == ["job_accepted", *["step_asked"] * 4, "attempt_failed"]
    steps = list(desk.job.steps.values())
    desk.say(succeeded(desk.job, steps[0]))
    [result] = published(desk.say(succeeded(desk.job, steps[1])))
    assert result.answer.text == "2"


def test_what_a_refusal_makes_pointless_is_not_asked(use: Any) -> None:
    """One branch is refused, so all are abandoned: the one after it is never asked for."""

    async def strict(ctx: Context) -> Answer:
        await ctx.gather(*asks(ctx, 3))
        return Answer()

    use(strict)
    desk = Desk(Policy(limits=Limits(width=1)))
    round_ = desk.submit(prompt="q", pattern="test")
    assert kinds(round_) == ["job_accepted", "step_asked", "step_asked", "attempt_failed", "job_settled"]
    assert published(round_)[0].failure.kind is FailureKind.LIMIT


def test_open_steps_hold_their_reservation(use: Any) -> None:
    """Two that fit one by one do not fit together; what is answered is settled by what it took."""

    async def two_at_once(ctx: Context) -> Answer:
        try:
            await ctx.gather(*asks(ctx, 2))
        except StepError as error:
            return Answer(text=error.failure.message)
        return Answer(text="both")

    use(two_at_once)
    one = estimated(StepRequest(prompt="q0"))
    desk = Desk()
    [result] = published(desk.submit(prompt="q", pattern="test", limits={"tokens": 2 * one - 1}))
    assert result.answer.text == f"the job's limit of {2 * one - 1} tokens is reached"
    assert published(desk.submit(prompt="q", pattern="test", limits={"tokens": 2 * one})) == []
    assert desk.job.reserved_tokens == 2 * one


@pytest.mark.parametrize("running", [True, False])
def test_what_is_left_running_may_cost_its_call(use: Any, running: bool) -> None:
    """Until its node says what it used; what no node has begun costs nothing."""

    async def one_is_left(ctx: Context) -> Answer:
        await ctx.gather(*asks(ctx, 2), quorum=1)
        try:
            return await ctx.ask(StepRequest(prompt="more"))
        except StepError as error:
            return Answer(text=error.failure.message)

    use(one_is_left)
    desk = Desk()
    desk.submit(prompt="q", pattern="test", limits={"calls": 2})
    first, second = desk.job.steps.values()
    if running:
        desk.say(claimed(desk.job, second, "c2", node="n2"))
    round_ = desk.say(claimed(desk.job, first), succeeded(desk.job, first))
    assert len(dispatched(round_)) == (0 if running else 1)
    assert [result.answer.text for result in published(round_)] == (["the job's limit of 2 calls is reached"] if running else [])


def test_retries_count() -> None:
    """Failed attempts consume calls too: the limit ends the step though the retry policy would go on."""
    desk = Desk(Policy(retry=RetryPolicy(10, 0.5, 1.0)))
    desk.submit(prompt="q", limits={"calls": 2})
    assert published(desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step))) == []
    desk.wait(2.0)
    [result] = published(desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step)))
    assert result.failure.kind is FailureKind.LIMIT
    assert result.usage.wasted_calls == 2


def test_a_pattern_that_never_stops_asking_is_ended(use: Any) -> None:
    """Every ask is refused and the pattern catches each refusal: the home must come to an end with it."""

    async def stubborn(ctx: Context) -> Answer:
        while True:
            try:
                return await ctx.ask(StepRequest(prompt="again"))
            except StepError:
                pass

    use(stubborn)
    desk = Desk(Policy(limits=Limits(calls=1, steps=5)))
    desk.submit(prompt="q", pattern="test")
    assert published(desk.say(failed(desk.job, desk.step, FailureKind.BAD_REQUEST, claim=None)))[0].failure.kind is FailureKind.LIMIT
    assert desk.types().count("step_asked") == 10


def test_a_step_too_large_to_travel_is_a_typed_failure(use: Any) -> None:
    """Refused before dispatch: the record would be given up on its way."""

    async def large(ctx: Context) -> Answer:
        return await ctx.ask(StepRequest(prompt="\N{EURO SIGN}" * (STEP_BYTES // 3)))

    use(large)
    desk = Desk()
    round_ = desk.submit(prompt="q", pattern="test")
    assert dispatched(round_) == []
    assert published(round_)[0].failure.kind is FailureKind.TOO_LARGE
    assert STEP_BYTES * 4 // 3 + 4_096 < RECORD_BYTES


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_sleep_costs_nothing(use: Any, seconds: float) -> None:
    """It is neither a step nor a call, and ends when it is due."""

    async def nap(ctx: Context) -> Answer:
        await ctx.sleep(seconds)
        return Answer(text="awake")

    use(nap)
    desk = Desk(Policy(limits=Limits(calls=1, steps=1, width=1)))
    assert kinds(desk.submit(prompt="q", pattern="test")) == ["job_accepted", "timer_set"]
    round_ = desk.wait(seconds + 0.02)
    assert kinds(round_) == ["timer_fired", "job_settled"]
    assert (published(round_)[0].answer.text, published(round_)[0].steps) == ("awake", 0)


def estimated(request: StepRequest) -> int:
    return estimate_tokens(request, request.length(), PromptLengths())


def test_estimates() -> None:
    """Four bytes a token, plus what the answer may have; an embedding has no answer text."""
    assert estimated(StepRequest(prompt="x" * 40)) == 11 + 256
    assert estimated(StepRequest(prompt="我" * 40)) == 31 + 256
    assert estimated(StepRequest(prompt="x" * 40, options=Options(max_tokens=9))) == 11 + 9
    assert estimated(StepRequest(texts=("x" * 40, "y" * 40))) == 21


def test_what_a_job_leaves_out_is_filled() -> None:
    """And nothing else."""
    assert filled(Limits(calls=1), Limits(calls=64, width=16)) == Limits(calls=1, width=16)
