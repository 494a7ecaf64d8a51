"""Conversation: how a job's pattern runs in its turn. What was said before stands in front of all that its models read; where that has
grown too long, the older turns are summed up first, as one durable step of the agent `summarise`.

If that fails the turn goes on without them, and the answer's explanation says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from shared.contracts.chat import Answer, ChatMessage, Options
from shared.contracts.conversation import ContextRef, Memory
from shared.contracts.critique import MOST_POLICIES, Guard
from shared.contracts.failure import Failure
from shared.contracts.job import HeldJob, Job
from shared.framing import NO_ORDERS
from shared.patterns.context import EXPLANATION_BYTES, Context
from shared.patterns.control import Control, decide

AGENT = "summarise"
_LEAST_CALLS = 4
"""A job that may make fewer is left all of them."""
_MOST_SECONDS = 30.0
_ROOM = 450
"""Tokens of the summary, with its facts and preferences: with what it is made of they fit a window of 2,048."""
_ASKED = (
    "Sum up the conversation so far, for yourself to go on with: write what was asked, answered and decided. Keep names and numbers. "
    "List as facts what the user said of himself and his affairs, and as preferences how he wants to be answered. "
    "Leave a list empty where there is nothing. " + NO_ORDERS
)
_Short = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class _JobInTurn(HeldJob):
    """A job as its pattern sees it: of a conversation whose turn has come, each request made of it has the context; with its tenant's
    policies its input may be redacted, and its streams are guarded.
    """

    context: ContextRef | None = None
    guard: tuple[Guard, ...] = Field(default=(), max_length=MOST_POLICIES)


class _Recap(Control):
    """What a model keeps of older turns."""

    summary: Annotated[str, StringConstraints(min_length=1, max_length=800)]
    facts: tuple[_Short, ...] = Field(max_length=5)
    preferences: tuple[_Short, ...] = Field(max_length=3)


def in_turn(job: Job, context: ContextRef | None) -> _JobInTurn:
    """The job with this before it; what it gives, and what it leaves to defaults, is as it was."""
    return as_seen(job, context=context)


def as_seen(job: Job, **fields: Any) -> _JobInTurn:
    """The job as its pattern is to see it, with other fields; nothing is validated."""
    return _JobInTurn.model_construct(_fields_set=job.model_fields_set, **{**job.__dict__, **fields})


async def after_recap(ctx: Context, job: _JobInTurn, older: ContextRef, run: Callable[[_JobInTurn], Awaitable[Answer]]) -> Answer:
    """The pattern's answer, once the older turns are summed up."""
    calls = ctx.limits.calls
    if calls is not None and calls < _LEAST_CALLS:
        return _told(await run(job), older, f"the job may make only {calls} calls")
    request = ctx.request(in_turn(job, older), AGENT, ChatMessage(role="user", content=_ASKED), options=Options(max_tokens=_ROOM))
    [recap] = await ctx.in_time(min(_MOST_SECONDS, ctx.seconds / 4), decide(ctx, request, _Recap))
    ctx.dropped = True
    if not isinstance(recap, _Recap):
        return _told(await run(job), older, _why(recap))
    ctx.found = Memory(summary=recap.summary, facts=recap.facts, preferences=recap.preferences)
    size = len(recap.summary) + sum(map(len, (*recap.facts, *recap.preferences)))
    before = job.context or ContextRef(memory=older.memory)
    grown = {"found": ctx.found, "characters": before.characters + size, "longest": before.longest + len(ctx.found.to_bytes())}
    return await run(in_turn(job, before.model_copy(update=grown)))


def _why(failure: Failure | None) -> str:
    return "they were not summed up in time" if failure is None else f"they could not be summed up: {failure.kind.value}"


def _told(answer: Answer, older: ContextRef, why: str) -> Answer:
    """The answer, which says what its models have not read."""
    told = {"left_out_turns": older.turns, "why": why}
    both = answer.model_copy(update={"explanation": {**(answer.explanation or {}), "conversation": told}})
    return both if len(both.encoded(include={"explanation"})) <= EXPLANATION_BYTES else answer
