"""Pools: branches that end one by one, with a bound on how many run."""

from __future__ import annotations

import pytest

from shared.contracts.base import StepId
from shared.contracts.chat import Answer
from shared.patterns.context import Context, Pool
from shared.patterns.run import Run
from tests.unit.planner.driven import BROKEN, ask, ids, nothing_is_left, prompts, record_all, started

__all__ = ["nothing_is_left"]


def answer(run: Run, prompt: str, open_: dict[str | None, StepId]) -> None:
    run.resume(open_[prompt], Answer(text=prompt))


def taken(run: Run, open_: dict[str | None, StepId]) -> list[str | None]:
    """What is wanted enters history, and is known by its prompt from then on."""
    names = prompts(run)
    open_.update(ids(run))
    record_all(run)
    return names


async def all_of(ctx: Context, width: int, names: str) -> Answer:
    pool = ctx.pool(width)
    for name in names:
        pool.add(name, ask(ctx, name))
    told = []
    while (ended := await pool.next()) is not None:
        told.append(ended.key if ended.failure is None else ended.key.upper())
    return Answer(text="".join(told))


def test_ends_come_in_the_order_of_history_and_no_more_run_than_the_width() -> None:
    run, open_ = started(lambda ctx: all_of(ctx, 2, "abc")), dict[str | None, StepId]()
    assert taken(run, open_) == ["a", "b"]
    answer(run, "b", open_)
    assert taken(run, open_) == ["c"]
    run.resume(open_["c"], failure=BROKEN)
    answer(run, "a", open_)
    assert run.answer == Answer(text="bCa")


def test_an_empty_pool_has_no_next_end() -> None:
    assert started(lambda ctx: all_of(ctx, 1, "")).answer == Answer()


def test_what_runs_when_its_coroutine_ends_is_abandoned() -> None:
    async def first(ctx: Context) -> Answer:
        pool = ctx.pool(2)
        for name in "abc":
            pool.add(name, ask(ctx, name))
        ended = await pool.next()
        assert ended is not None
        return Answer(text=ended.key)

    run, open_ = started(first), dict[str | None, StepId]()
    taken(run, open_)
    answer(run, "b", open_)
    assert run.answer == Answer(text="b")
    assert run.take_abandoned() == [open_["a"]]


def test_a_sleep_takes_no_place_and_bounds_the_wait() -> None:
    async def in_time(ctx: Context) -> Answer:
        pool = ctx.pool(1)
        pool.add("a", ask(ctx, "a"))
        pool.add("b", ask(ctx, "b"))
        pool.add("late", ctx.sleep(5))
        while (ended := await pool.next()) is not None and ended.key != "late":
            ctx.best(ended.value)
        return ctx.best_answer or Answer()

    run, open_ = started(in_time), dict[str | None, StepId]()
    sleep = next(wanted.step for wanted in run.wanted() if wanted.request is None)
    assert taken(run, open_) == ["a"]
    answer(run, "a", open_)
    taken(run, open_)
    run.resume(sleep)
    assert run.answer == Answer(text="a")
    assert run.take_abandoned() == [open_["b"]]


def test_a_closed_pool_is_empty_and_goes_on_with_new_paths() -> None:
    async def twice(ctx: Context) -> Answer:
        pool: Pool = ctx.pool(1)
        pool.add(1, ask(ctx, "a"))
        pool.add(2, ask(ctx, "b"))
        await pool.next()
        await pool.close()
        pool.add(3, ask(ctx, "a"))
        ended = await pool.next()
        assert ended is not None
        return Answer(text=str(ended.key))

    run, open_ = started(twice), dict[str | None, StepId]()
    taken(run, open_)
    first = open_["a"]
    answer(run, "a", open_)
    assert taken(run, open_) == ["a"], "b was never begun"
    assert open_["a"] != first
    answer(run, "a", open_)
    assert run.answer == Answer(text="3")


def test_a_bug_in_a_branch_is_raised_where_the_pool_is_awaited() -> None:
    async def bug(ctx: Context) -> str:
        await ask(ctx, "a")
        raise KeyError("x")

    async def pattern(ctx: Context) -> Answer:
        pool = ctx.pool(1)
        pool.add(1, bug(ctx))
        try:
            await pool.next()
        except KeyError:
            return Answer(text="seen")
        return Answer()

    run = started(pattern)
    run.resume(record_all(run)[0], Answer())
    assert run.answer == Answer(text="seen")


@pytest.mark.parametrize("label", [(), ("a",), ("a", 1), ("a", "1"), ("a\x1f1",)])
def test_seeds_are_a_job_s_own_and_small_enough_for_any_backend(label: tuple[str | int, ...]) -> None:
    one, other = Context("t/j_1"), Context("t/j_2")
    assert one.seed(*label) == Context("t/j_1").seed(*label) != other.seed(*label)
    assert 0 <= one.seed(*label) < 2**31
    assert sorted(one.shuffled("abcdef", *label)) == list("abcdef")
