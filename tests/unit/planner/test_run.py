"""Run: a pattern's coroutine is driven by recorded outcomes, and only by them."""

from __future__ import annotations

from typing import Any

import pytest

from shared.clock import LoopClock
from shared.contracts.base import StepId
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.errors import NonDeterministicPattern
from shared.patterns.context import Context, StepError
from shared.patterns.port import Pattern
from shared.patterns.run import Run
from tests.unit.planner.driven import BROKEN, Body, ask, ids, nothing_is_left, prompts, record_all, started

__all__ = ["nothing_is_left"]


def test_ids_depend_on_job_pattern_version_path_and_input() -> None:
    """Any difference is another id; that is why nothing made from another history can be accepted."""

    async def body(ctx: Context, job: Job, ask: object) -> Answer:
        return await ctx.ask(StepRequest(prompt=job.prompt))

    def first(job_id: str = "j_1", name: str = "a", version: int = 1, prompt: str = "q") -> str:
        run = Run(job_id, Pattern(name, version, body), Job(prompt=prompt))
        run.start()
        return str(run.wanted()[0].step)

    variants = [first(), first("j_2"), first(name="b"), first(version=2), first(prompt="r")]
    assert len(set(variants)) == 5
    assert first() == variants[0]


def test_the_same_question_twice_is_two_steps() -> None:
    """The path of calls counts iterations."""

    async def body(ctx: Context) -> Answer:
        await ask(ctx, "same")
        return await ask(ctx, "same")

    run = started(body)
    [first] = record_all(run)
    run.resume(first, Answer())
    [second] = record_all(run)
    assert first != second


def test_gather_without_quorum_raises_the_first_error_and_abandons_the_rest() -> None:
    """The first in the order of outcomes, not of branches."""

    async def body(ctx: Context) -> Answer:
        try:
            await ctx.gather(ask(ctx, "a"), ask(ctx, "b"), ask(ctx, "c"))
        except StepError as error:
            return Answer(text=error.failure.message)
        return Answer()

    run = started(body)
    steps = ids(run)
    record_all(run)
    run.resume(steps["c"], Answer())
    run.resume(steps["b"], failure=Failure(kind=FailureKind.MODEL_ERROR, message="b failed"))
    assert run.answer == Answer(text="b failed")
    assert run.take_abandoned() == [steps["a"]]


def test_an_abandoned_branch_takes_all_below_it_along() -> None:
    """However deep: inner gathers, their asks, and coroutines that wait for them."""

    async def leaf(ctx: Context, name: str) -> str:
        return (await ask(ctx, name)).text

    async def middle(ctx: Context, name: str) -> list[str]:
        return await ctx.gather(leaf(ctx, name + "1"), ctx.gather(leaf(ctx, name + "2"), ask(ctx, name + "3")))

    async def body(ctx: Context) -> Answer:
        await ctx.gather(middle(ctx, "x"), middle(ctx, "y"), ask(ctx, "z"), quorum=1)
        return Answer(text="enough")

    run = started(body)
    steps = ids(run)
    assert set(steps) == {"x1", "x2", "x3", "y1", "y2", "y3", "z"}
    record_all(run)
    run.resume(steps["x2"], Answer())
    run.resume(steps["z"], Answer())
    assert run.answer == Answer(text="enough")
    assert set(run.take_abandoned()) == {steps[name] for name in ("x1", "x3", "y1", "y2", "y3")}
    run.resume(steps["y1"], Answer(text="late"))
    assert run.answer == Answer(text="enough")


def test_a_quorum_keeps_what_succeeded_and_abandons_the_rest() -> None:
    """Places of the others hold None."""

    async def body(ctx: Context) -> Answer:
        found = await ctx.gather(ask(ctx, "a"), ask(ctx, "b"), ask(ctx, "c"), ask(ctx, "d"), quorum=2)
        return Answer(text="|".join("-" if a is None else a.text for a in found))

    run = started(body)
    steps = ids(run)
    record_all(run)
    run.resume(steps["c"], Answer(text="C"))
    run.resume(steps["a"], failure=BROKEN)
    assert not run.finished
    run.resume(steps["b"], Answer(text="B"))
    assert run.answer == Answer(text="-|B|C|-")
    assert run.take_abandoned() == [steps["d"]]


def test_an_impossible_quorum_ends_as_soon_as_it_is_impossible() -> None:
    """With the first error; nobody waits for the others."""

    async def body(ctx: Context) -> Answer:
        await ctx.gather(ask(ctx, "a"), ask(ctx, "b"), ask(ctx, "c"), quorum=2)
        return Answer()

    run = started(body)
    steps = ids(run)
    record_all(run)
    run.resume(steps["a"], failure=BROKEN)
    assert not run.finished
    run.resume(steps["b"], failure=Failure(kind=FailureKind.NODE_LOST, message="second"))
    assert run.failure == BROKEN
    assert run.wanted() == []


@pytest.mark.parametrize("quorum", [0, -1, 3])
def test_a_quorum_that_makes_no_sense_is_the_patterns_error(quorum: int) -> None:
    """Neither none of the branches nor more than there are: an empty success would be believed."""

    async def leaf() -> str:
        return "x"

    async def body(ctx: Context) -> Answer:
        await ctx.gather(leaf(), ctx.gather(leaf()), quorum=quorum)
        return Answer()

    run = started(body)
    assert run.failure == Failure(kind=FailureKind.INTERNAL, message="the pattern raised ValueError")


def test_a_gather_of_nothing_gives_nothing() -> None:
    """And does not wait."""

    async def body(ctx: Context) -> Answer:
        return Answer(text=str(await ctx.gather()))

    assert started(body).answer == Answer(text="[]")


def test_branches_that_were_never_begun_are_closed_with_their_own() -> None:
    """The first branch ends at once; the others' coroutines, also those inside a gather, never start (warnings are errors)."""

    async def at_once() -> str:
        return "now"

    async def body(ctx: Context) -> Answer:
        found = await ctx.gather(at_once(), at_once(), ctx.gather(at_once(), ctx.gather(at_once())), ask(ctx, "never"), quorum=1)
        return Answer(text=str(found))

    run = started(body)
    assert run.answer == Answer(text="['now', None, None, None]")
    assert run.wanted() == []


def test_history_that_asks_for_something_else_is_told_so() -> None:
    """A typed error, whatever the foreign step is."""
    run = started(ctx_answer)
    with pytest.raises(NonDeterministicPattern):
        run.record(StepId("0" * 32))
    [step] = record_all(run)
    with pytest.raises(NonDeterministicPattern):
        run.record(step)


async def ctx_answer(ctx: Context) -> Answer:
    return await ask(ctx, "q")


def test_an_outcome_nobody_waits_for_changes_nothing() -> None:
    """Unknown, or the second of a step."""
    run = started(ctx_answer)
    [step] = record_all(run)
    run.resume(StepId("0" * 32), Answer(text="foreign"))
    assert not run.finished
    run.resume(step, Answer(text="first"))
    run.resume(step, Answer(text="second"))
    assert run.answer == Answer(text="first")


class Foreign:
    """Awaitable, but nothing that a run knows."""

    def __await__(self) -> Any:
        yield object()


async def _foreign(ctx: Context) -> Answer:
    await Foreign()
    return Answer()


async def _sleep_outside(ctx: Context) -> Answer:
    await LoopClock().sleep(0)
    return Answer()


async def _ask_nothing(ctx: Context) -> Answer:
    return await ctx.ask(None)  # type: ignore[arg-type]


async def _gather_numbers(ctx: Context) -> Answer:
    await ctx.gather(1, 2)  # type: ignore[arg-type]
    return Answer()


async def _long_sleep(ctx: Context) -> Answer:
    await ctx.sleep(float("inf"))
    return Answer()


async def _sleep_backwards(ctx: Context) -> Answer:
    await ctx.sleep(-1)
    return Answer()


async def _no_answer(ctx: Context) -> Answer:
    return "text"  # type: ignore[return-value]


async def _raises(ctx: Context) -> Answer:
    raise KeyError("secret")


@pytest.mark.parametrize(
    "body", [_sleep_outside, _foreign, _ask_nothing, _gather_numbers, _long_sleep, _sleep_backwards, _no_answer, _raises]
)
def test_a_pattern_that_misbehaves_fails_its_job_and_nothing_else(body: Body) -> None:
    """Foreign awaits, impossible commands, exceptions: an internal failure that does not quote what was raised."""
    run = started(body)
    assert run.finished
    assert run.answer is None
    assert run.failure is not None
    assert run.failure.kind is FailureKind.INTERNAL
    assert "secret" not in run.failure.message


def test_a_pattern_may_catch_what_it_cannot_await() -> None:
    """The error is raised where it awaits."""

    async def body(ctx: Context) -> Answer:
        try:
            await Foreign()
        except TypeError:
            return await ask(ctx, "instead")
        return Answer()

    assert prompts(started(body)) == ["instead"]


def test_a_step_that_fails_for_good_is_the_jobs_failure_unless_caught() -> None:
    """The failure travels unchanged."""
    run = started(ctx_answer)
    [step] = record_all(run)
    run.resume(step, failure=BROKEN)
    assert run.failure == BROKEN


def test_a_coroutine_that_awaits_while_it_is_closed_stops_nobody() -> None:
    """`finally: await ...` in an abandoned branch is the pattern's mistake; the other branches and the home go on."""

    async def stubborn(ctx: Context) -> None:
        try:
            await ask(ctx, "stubborn")
        finally:
            await ask(ctx, "cleanup")

    async def body(ctx: Context) -> Answer:
        await ctx.gather(stubborn(ctx), ask(ctx, "b"), quorum=1)
        return Answer(text="went on")

    run = started(body)
    steps = ids(run)
    record_all(run)
    run.resume(steps["b"], Answer())
    assert run.answer == Answer(text="went on")
    assert run.wanted() == []


def test_a_coroutine_that_raises_while_it_is_closed_stops_nobody() -> None:
    """Closing a settled job's run never raises."""

    async def body(ctx: Context) -> Answer:
        try:
            return await ask(ctx, "a")
        finally:
            raise RuntimeError

    run = started(body)
    record_all(run)
    run.close()
    assert run.finished


def test_the_best_answer_is_noted() -> None:
    """For when a limit ends the job."""

    async def body(ctx: Context) -> Answer:
        ctx.best(await ask(ctx, "draft"))
        return await ask(ctx, "final")

    run = started(body)
    [step] = record_all(run)
    run.resume(step, Answer(text="draft"))
    assert run.context.best_answer == Answer(text="draft")
