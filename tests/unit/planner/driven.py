"""What the tests of Run share: patterns made of a body, and what a run wants."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from shared.contracts.base import StepId
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.patterns.context import Ask, Context
from shared.patterns.port import Pattern
from shared.patterns.run import Run

BROKEN = Failure(kind=FailureKind.MODEL_ERROR, message="no")
Body = Callable[[Context], Coroutine[Any, Any, Any]]


def started(body: Body) -> Run:
    """A run of a pattern made of `body`."""

    async def pattern(ctx: Context, job: Job, ask: object) -> Answer:
        result: Answer = await body(ctx)
        return result

    run = Run("j_1", Pattern("test", 1, pattern), Job(prompt="q"))
    run.start()
    return run


def ask(ctx: Context, text: str) -> Ask:
    return ctx.ask(StepRequest(prompt=text))


def prompts(run: Run) -> list[str | None]:
    return [wanted.request.prompt for wanted in run.wanted() if wanted.request]


def record_all(run: Run) -> list[StepId]:
    """Everything wanted enters history; the step ids."""
    steps = [wanted.step for wanted in run.wanted()]
    for step in steps:
        run.record(step)
    return steps


def ids(run: Run) -> dict[str | None, Any]:
    """prompt → step id of what is wanted."""
    return {wanted.request.prompt: wanted.step for wanted in run.wanted() if wanted.request}


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A coroutine that was never awaited, or ignores its end, is a warning when it is collected; warnings are errors."""
    yield
    gc.collect()
