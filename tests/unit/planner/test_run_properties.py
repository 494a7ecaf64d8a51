"""Run, by random patterns in random orders: first run and re-run are the same, and nothing is ever left behind."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.base import StepId
from shared.contracts.chat import Answer
from shared.patterns.context import Context, StepError
from shared.patterns.run import Run
from tests.unit.planner.driven import BROKEN, ask, nothing_is_left, record_all, started

__all__ = ["nothing_is_left"]


# Random patterns: a tree of asks, sleeps, sequences and gathers, read from a seed

Plan = tuple[str, Any]

plans: st.SearchStrategy[Plan] = st.recursive(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3)),
        st.tuples(st.just("sleep"), st.integers(0, 3)),
        st.tuples(st.just("now"), st.integers(0, 3)),
        st.tuples(st.just("fail"), st.integers(0, 3)),
    ),
    lambda inner: st.one_of(
        st.tuples(st.just("then"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("gather"), st.tuples(st.lists(inner, max_size=4), st.one_of(st.none(), st.integers(1, 4)), st.booleans())),
        st.tuples(st.just("pool"), st.tuples(st.lists(inner, max_size=4), st.integers(1, 3), st.integers(0, 4))),
    ),
    max_leaves=12,
)


async def follow(ctx: Context, plan: Plan) -> str:
    """Do what the plan says; the text depends on everything that came back."""
    kind, of = plan
    if kind == "ask":
        return (await ask(ctx, f"q{of}")).text
    if kind == "sleep":
        await ctx.sleep(of)
        return "slept"
    if kind == "now":
        return f"now{of}"
    if kind == "fail":
        raise StepError(BROKEN)
    if kind == "then":
        return "(" + " ".join([await follow(ctx, inner) for inner in of]) + ")"
    if kind == "pool":
        return await follow_pool(ctx, *of)
    branches, quorum, tolerant = of
    try:
        found = await ctx.gather(*(follow(ctx, inner) for inner in branches), quorum=quorum and max(1, min(quorum, len(branches))))
    except StepError:
        if not tolerant:
            raise
        return "none"
    return "[" + " ".join(map(str, found)) + "]"


async def follow_pool(ctx: Context, branches: list[Plan], width: int, enough: int) -> str:
    """Take `enough` ends, add one more branch after the first, then either close and go on, or leave the rest to be abandoned."""
    pool, told = ctx.pool(width), list[str]()
    for number, inner in enumerate(branches):
        pool.add(number, follow(ctx, inner))
    while len(told) < enough and (ended := await pool.next()) is not None:
        if not told:
            pool.add("more", ask(ctx, "more"))
        told.append(f"{ended.key}:{ended.value if ended.failure is None else 'none'}")
    if enough % 2:
        await pool.close()
        told.append((await ask(ctx, "after")).text)
    return "{" + " ".join(told) + "}"


async def answer_of(ctx: Context, plan: Plan) -> Answer:
    return Answer(text=await follow(ctx, plan))


def drive(run: Run, draw: Random, history: list[Any] | None = None) -> list[Any]:
    """Resume open steps in a random order, or in that of `history`; returns what happened, in order."""
    happened: list[Any] = []
    given = iter(history or ())
    open_: list[StepId] = []
    while not run.finished:
        for wanted in run.wanted():
            run.record(wanted.step)
            open_.append(wanted.step)
            happened.append(("asked", wanted.step, wanted.path))
        for gone in run.take_abandoned():
            happened.append(("abandoned", gone))
            if gone in open_:  # else it was wanted, and given up before history could hold it
                open_.remove(gone)
        if history is None:
            step, well = draw.choice(open_), draw.random() < 0.7
        else:
            step, well = next(entry[1:] for entry in given if entry[0] == "resumed")
        open_.remove(step)
        happened.append(("resumed", step, well))
        run.resume(step, Answer(text=step[:4]) if well else None, None if well else BROKEN)
    happened.append((run.answer, run.failure))
    return happened


@given(plans, st.integers())
def test_a_second_run_resumed_in_the_same_order_is_the_same(plan: Plan, seed: int) -> None:
    """It asks for the same ids at the same points, abandons the same, and ends equally."""
    draw = Random(seed)
    first = drive(started(lambda ctx: answer_of(ctx, plan)), draw)
    assert drive(started(lambda ctx: answer_of(ctx, plan)), draw, first) == first


@given(plans, st.integers())
def test_every_run_ends_and_leaves_nothing_open(plan: Plan, seed: int) -> None:
    """Whatever the order of outcomes: one answer or one failure, and no step that is still waited for."""
    run = started(lambda ctx: answer_of(ctx, plan))
    drive(run, Random(seed))
    assert (run.answer is None) != (run.failure is None)
    assert run.wanted() == [] == list(run._waiting)


@given(plans, st.integers(), st.integers(0, 6))
def test_a_run_may_be_closed_at_any_point(plan: Plan, seed: int, resumes: int) -> None:
    """Nothing is wanted afterwards, and no coroutine is left that Python would complain about (warnings are errors)."""
    run, draw = started(lambda ctx: answer_of(ctx, plan)), Random(seed)
    for _ in range(resumes):
        steps = record_all(run) or list(run._waiting)
        if run.finished or not steps:
            break
        run.resume(draw.choice(steps), Answer())
    run.close()
    assert run.finished
    assert run.wanted() == [] == run.take_abandoned()
