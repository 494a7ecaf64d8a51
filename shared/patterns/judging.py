"""Judging: a model's opinion of a text, as a constrained verdict that must quote what it judges.

A judge sees the task and the text, as data, and nobody's name. What it gives as evidence must stand in the text: a verdict without it
counts as none, and none is never an approval. Where a judge's model is named, only that one judges: an author's never does by falling back.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.contracts.agents import Reference
from shared.contracts.base import ModelName
from shared.contracts.chat import Answer, ChatMessage, Options
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.framing import NO_ORDERS, framed
from shared.patterns.comparison import COMPARED_CHARACTERS
from shared.patterns.context import Context, StepError, stop_at_limit
from shared.patterns.control import Control, decide
from shared.patterns.port import PatternInput
from shared.validators.checks import occurs

MOST_CHARACTERS = 16_000
"""Of a text that is judged, or shown to be revised."""
_ROOM = 384
_JUDGE = """{data} Judge whether the text does the task well: {rubric}
Write one sentence of reasoning. Copy into `quote` a short passage of the text, word for word, that shows why. Say in `critique` what must \
be changed. `score` is 1 (useless) to 5 (nothing to change)."""
_COMPARE = "{data} Two texts do the same task. Which one does it better: {rubric} Their order and length do not count."
REVISE = "Write your answer again, whole, with these faults mended and all else kept. {data}\n{faults}"
RUBRIC = "is it correct, complete and clear?"


class Judge(PatternInput):
    """Who judges, and by what: a score of `accept` or more is an approval."""

    agent: Reference = "critic"
    model: ModelName | None = None
    rubric: str = Field(default=RUBRIC, min_length=1, max_length=4_000)
    accept: int = Field(default=4, ge=1, le=5)


class Grade(Control):
    """What a judge decides of one text."""

    reasoning: str = Field(default="", max_length=200)
    quote: str = Field(default="", max_length=160)
    critique: str = Field(default="", max_length=300)
    score: int = Field(ge=1, le=5)


class _Preference(Control):
    """What a judge decides of two texts."""

    reasoning: str = Field(default="", max_length=200)
    better: Literal["first", "second", "equal"]


async def judged(ctx: Context, job: Job, judge: Judge, task: str, text: str) -> Grade | None:
    """None where there is no verdict with evidence; an empty text is not even shown. At a limit StepError is raised."""
    if not text.strip():
        return None
    words = _JUDGE.format(data=NO_ORDERS, rubric=judge.rubric)
    content = f"{framed('task', task)}\n{framed('text', text, MOST_CHARACTERS)}\n\n{words}"
    try:
        grade = await decide(ctx, _request(ctx, job, judge, content), Grade)
    except StepError as error:
        stop_at_limit(error.failure)
        return None
    return grade if occurs(grade.quote, text[:MOST_CHARACTERS]) else None


Opinions = tuple[str | None, str | None]
"""Which place is better, of the texts as they are given and the other way round; None where there is no verdict."""


async def opinions(ctx: Context, job: Job, judge: Judge, task: str, texts: tuple[str, str]) -> Opinions:
    """Asked in both orders, side by side."""
    one, other = await ctx.gather(_compared(ctx, job, judge, task, texts), _compared(ctx, job, judge, task, texts[::-1]))
    return one, other


def preference(said: Opinions) -> int | None:
    """1: the first is better, 2: the second, 0: neither, None: an order has no verdict. Who prefers a place prefers no text."""
    return None if None in said else {("first", "second"): 1, ("second", "first"): 2}.get((said[0] or "", said[1] or ""), 0)


async def preferred(ctx: Context, job: Job, judge: Judge, task: str, texts: tuple[str, str]) -> int | None:
    """The preference of this judge."""
    return preference(await opinions(ctx, job, judge, task, texts))


async def _compared(ctx: Context, job: Job, judge: Judge, task: str, texts: tuple[str, str]) -> str | None:
    words = _COMPARE.format(data=NO_ORDERS, rubric=judge.rubric)
    shown = [framed(f"text {number}", text, COMPARED_CHARACTERS) for number, text in enumerate(texts, 1)]
    content = "\n".join((framed("task", task), *shown, "", words))
    try:
        return (await decide(ctx, _request(ctx, job, judge, content), _Preference)).better
    except StepError as error:
        stop_at_limit(error.failure)
        return None


def _request(ctx: Context, job: Job, judge: Judge, content: str) -> StepRequest:
    named = {} if judge.model is None else {"model": judge.model, "fallback_models": ()}
    message = ChatMessage(role="user", content=content)
    return ctx.request(job, judge.agent, message, options=Options(temperature=0.0, max_tokens=_ROOM), **named)


def readable(answer: Answer) -> bool:
    """Whether an answer can be judged and revised: its whole text is here, and it is one."""
    return answer.blob is None and not answer.tool_calls and len(answer.text) <= MOST_CHARACTERS
