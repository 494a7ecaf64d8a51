"""What the tests of recovery share: a pattern with everything in it, and what of a book history decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.planner.job.live import LiveJob
from services.planner.job.open_step import Phase
from services.planner.state.book import Book
from services.planner.state.policy import Policy
from shared.contracts.chat import Answer
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.patterns import BUILT_IN, Patterns
from shared.patterns.context import Context, StepError
from shared.patterns.port import Pattern, PatternInput
from shared.scheduling.retry import RetryPolicy
from tests.unit.planner import desk
from tests.unit.planner.desk import Desk


async def mixed(ctx: Context, job: Job, ask: PatternInput) -> Answer:
    """Everything a pattern may do: side by side, nested, a quorum, a sleep, a failure that is caught."""

    async def pair(name: str) -> str:
        first, second = await ctx.gather(ctx.ask(StepRequest(prompt=name + "1")), ctx.ask(StepRequest(prompt=name + "2", stream=True)))
        return str(first.text + second.text)

    try:
        found = await ctx.gather(pair("a"), pair("b"), ctx.ask(StepRequest(prompt="c")), quorum=2)
    except StepError as error:
        found = [error.failure.message]
    await ctx.sleep(3)
    ctx.best(Answer(text=str(found)))
    return await ctx.ask(StepRequest(prompt=str(found)))


MIXED = Pattern("mixed", 1, mixed)
POLICY = Policy(retry=RetryPolicy(4, 0.5, 5.0), resend_seconds=60.0, patterns=Patterns([*BUILT_IN.current.values(), MIXED]))


@pytest.fixture(scope="module", autouse=True)
def mixed_pattern() -> Iterator[None]:
    """`mixed` is a pattern while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk, "EXTRA", (MIXED,))
        yield


def state(book: Book) -> list[Any]:
    """All that history decides, of every job, in the order of first offsets."""
    return [
        (
            job.id,
            job.accepted,
            [(s.id, s.path, s.request, s.reserved_tokens, s.attempt, s.failures, s.phase, s.claim, s.avoid) for s in job.steps.values()],
            [(s.retry_after_seconds, s.wakes_at) for s in job.steps.values() if s.phase in (Phase.WAITING, Phase.SLEEPING)],
            (job.usage, job.steps_asked, job.attempts, job.reserved_tokens),
            (job.ending, [step.id for step in job.abandoned.values() if step.claim is not None]),
            job.settled,
            job.facts,
            job.run.wanted(),
            (job.run.context.best_answer, job.run.finished),
        )
        for job in book.jobs.values()
    ]


def live_steps(desk: Desk) -> list[tuple[LiveJob, Any]]:
    return [(job, step) for job in desk.book.jobs.values() for step in job.steps.values() if step.request is not None]
