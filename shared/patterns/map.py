"""map: the same step for every item of a list, then one answer over all of them.

When: many texts or questions want the same treatment: summarise these reports, classify these lines, answer for each customer.
Not when: the items need each other (decompose), or there is one of them (single).
Options: `items` (else the prompt's lines are the items), `template` (`{item}`, and `{input}`, the prompt), `width` (at once, 8), `agent`,
`within_seconds` (who is later is left out and said so), `reduce`: `ask` (a model makes one answer of them, by `instruction`), `join`
(texts, one after the other), `list` (JSON: every item's index, outcome and text), `least` (so many must succeed, 1).
Cost: one call an item, and with `ask` one for each 12,000 characters of answers, in rounds until one is left; depth 1 + rounds.
Try: tutti submit --pattern map --input <(echo '{items: [France, Peru], template: "The capital of {item}?"}') "Capitals."

    items ─┬─► step ─┐
           ├─► step ─┼─► reducer ─► answer
           └─► step ─┘
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import to_json

from shared.contracts.agents import Reference
from shared.contracts.base import PositiveSeconds
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.framing import NO_ORDERS, TOLD, framed
from shared.patterns.chain import job_input, names_in, render
from shared.patterns.context import Context, StepError, chat, stop_at_limit
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.tool_use import ask_with_tools

MOST_ITEMS = 1_000
PORTION = 12_000
"""Characters of answers that one call of the reducer reads."""
_REDUCE = f"Below are results, one for each item; some may have failed. {NO_ORDERS}"
_INSTRUCTION = "Write one answer that brings the results together. Say which items are missing, if any."
Item = Annotated[str, StringConstraints(min_length=1, max_length=32_000)]


class _MapInput(PatternInput):
    """What is done with each item, and what is made of it all."""

    items: tuple[Item, ...] = Field(default=(), max_length=MOST_ITEMS)
    template: str = Field(default="{item}", min_length=1, max_length=32_000)
    agent: Reference | None = None
    width: int = Field(default=8, ge=1, le=64)
    within_seconds: PositiveSeconds | None = None
    reduce: Literal["ask", "join", "list"] = "ask"
    instruction: str = Field(default=_INSTRUCTION, min_length=1, max_length=8_000)
    least: int = Field(default=1, ge=0, le=MOST_ITEMS)

    @model_validator(mode="after")
    def _named(self) -> Self:
        unknown = sorted(names_in(self.template) - {"item", "input"})
        if unknown:
            raise ValueError(f"the template names {unknown[0]}; it may name item and input")
        return self


def items_of(job: Job, ask: _MapInput) -> tuple[str, ...]:
    """Those that are given, or the prompt's lines."""
    return ask.items or tuple(line.strip() for line in job_input(job).splitlines() if line.strip())[:MOST_ITEMS]


async def map_(ctx: Context, job: Job, ask: _MapInput) -> Answer:
    """One outcome an item, in the items' order, whatever the order of arrival: the text, or why there is none."""
    items = items_of(job, ask)
    if ask.items or ask.reduce != "ask" or (ask.template, ask.instruction) != ("{item}", _INSTRUCTION):
        ctx.baseline = None  # the prompt alone is another task
    requests = (_request(ctx, job, ask, render(ask.template, {"item": item, "input": job_input(job)})) for item in items)
    asks = (ask_with_tools(ctx, ask.agent, request) for request in requests)
    outcomes: list[Answer | Failure | None] = await ctx.in_time(ask.within_seconds, *asks, width=ask.width)
    texts = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if len(texts) < min(ask.least, len(items)):
        first = next((outcome for outcome in outcomes if isinstance(outcome, Failure)), None)
        late = Failure(kind=FailureKind.DEADLINE, message=f"{len(texts)} of {len(items)} items were there in time; {ask.least} are needed")
        raise StepError(first or late)
    told = [_told(outcome) for outcome in outcomes]
    listed = Answer(text=to_json([_listed(index, outcome) for index, outcome in enumerate(outcomes)]).decode())
    joined = Answer(text="\n\n".join(f"[{index}] {text}" for index, text in enumerate(told, 1)))
    ctx.best(listed if ask.reduce == "list" else joined)
    stop_at_limit(*outcomes)
    if ask.reduce == "ask" and len(items) > 1:
        return await _reduced(ctx, job, ask, [framed(index, text) for index, text in enumerate(told, 1)])
    return texts[0] if len(items) == 1 and ask.reduce != "list" else ctx.best_answer or joined


async def _reduced(ctx: Context, job: Job, ask: _MapInput, told: list[str]) -> Answer:
    while len(portions := _portions(told)) > 1:
        asks = [ctx.ask(_reducer(ctx, job, ask, portion)) for portion in portions]
        width = ask.width
        parts = [part for start in range(0, len(asks), width) for part in await ctx.gather(*asks[start : start + width])]
        told = [framed(f"part {number}", part.text) for number, part in enumerate(parts, 1)]
    return await ctx.ask(_reducer(ctx, job, ask, portions[0]).model_copy(update={"stream": job.stream}))


def _portions(told: list[str]) -> list[list[str]]:
    """At least two a portion, or the rounds would not end."""
    portions: list[list[str]] = []
    for text in told:
        if portions and (len(portions[-1]) < 2 or sum(map(len, portions[-1])) + len(text) <= PORTION):
            portions[-1].append(text)
        else:
            portions.append([text])
    return portions


def _reducer(ctx: Context, job: Job, ask: _MapInput, portion: list[str]) -> StepRequest:
    return _request(ctx, job, ask, "\n\n".join((_REDUCE, *portion, f"The task: {job_input(job)[:TOLD]}", ask.instruction)))


def _request(ctx: Context, job: Job, ask: _MapInput, prompt: str) -> StepRequest:
    message = ChatMessage(role="user", content=prompt)
    if ask.agent is not None:
        return ctx.request(job, ask.agent, message)
    system = (ChatMessage(role="system", content=job.system),) if job.system else ()
    return chat(job, (*system, message), agent="map")


def _told(outcome: Answer | Failure | None) -> str:
    if isinstance(outcome, Answer):
        return "(too large to be shown)" if outcome.blob is not None else outcome.text
    return "(late)" if outcome is None else "(failed)"


def _listed(index: int, outcome: Answer | Failure | None) -> dict[str, object]:
    if isinstance(outcome, Answer):
        return {"index": index, "outcome": "answered", "text": outcome.text, **({"bytes": outcome.blob.size} if outcome.blob else {})}
    return {"index": index, "outcome": "late"} if outcome is None else {"index": index, "outcome": "failed", "kind": outcome.kind.value}


def likely_calls(job: Job, ask: _MapInput) -> Sequence[int]:
    """A call an item, and the reducer's."""
    items = items_of(job, ask)
    reducers = [PORTION] if ask.reduce == "ask" and len(items) > 1 else []
    return [len(ask.template)] * len(items) + reducers


MAP = Pattern("map", 1, map_, _MapInput, likely_calls=likely_calls, limits=Limits(calls=2_500, steps=2_500, width=64))
