"""tools: a model that may use the cluster's tools (calculator, HTTP, MCP servers, retrieval), each call a durable step; or one call alone.

When: the answer needs something that no model has in its head: a calculation, today's figures, a document, a system of yours.
Not when: the tools are the caller's own (`tools` of a chat request, pattern single), or the answer is in the prompt already.
Options: `tools` (names of declared tools), `rounds` (in which they may be called), `agent` (who answers; its own tools are there, too);
`by` (`schema`: calls are constrained choices, for models that know none; so they are anyway where no model that may answer knows any);
`tool` (call this one alone: the prompt is its arguments as JSON, its result the answer).
Cost: at most rounds + 1 calls of the model, and what it calls, at most eight side by side in a round; depth 2 a round.
Try: tutti submit --pattern tools --input <(echo 'tools: [calculator]') "What is 17 times 23?"
  # when a worker serves it: README, Tools

    prompt ─► model ─┬─► call ─┬─► model ─► answer
                     └─► call ─┘     └─► ...

Results are data: nothing in them adds a tool, a role or a round. Calls that history has are never made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import from_json

from shared.contracts.agents import Reference
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.patterns.chain import job_input
from shared.patterns.context import Context, StepError, chat, explained
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.samples import question
from shared.patterns.tool_use import ROUNDS, argument_faults, call_of, use_tools


class _ToolsInput(PatternInput):
    """Which tools may be used, or which is called."""

    tools: tuple[Reference, ...] = Field(default=(), max_length=24)
    rounds: int = Field(default=ROUNDS, ge=1, le=12)
    agent: Reference | None = None
    tool: Reference | None = None
    by: Literal["calls", "schema"] = "calls"
    """How the model says what it calls: in its own spelling, or as a constrained choice, which every model can make."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.tool is not None and (self.tools or self.agent):
            raise ValueError("`tool` is called alone: without `tools` and `agent`")
        return self


async def tools(ctx: Context, job: Job, ask: _ToolsInput) -> Answer:
    """The model's answer, its explanation the calls; or the tool's result."""
    if ask.tool is not None:
        ctx.baseline = None  # no model has part in it
        return await _called(ctx, job, ask.tool)
    given, own = question(job), () if ask.agent is None else ctx.team.member(ask.agent).tools
    if ask.agent is None:
        request = chat(job, given, format=job.format, stream=job.stream)
    else:
        turns = given[1:] if job.system and given[0].role == "system" else given  # the agent is told it beside its own words
        request = ctx.request(job, ask.agent, *turns, stream=job.stream, **({"format": job.format} if job.format else {}))
    used = await use_tools(ctx, request, ctx.tools((*ask.tools, *own)), ask.rounds, ask.by)
    return explained(used.answer, calls=used.calls) if used.calls else used.answer


async def _called(ctx: Context, job: Job, name: str) -> Answer:
    [tool] = ctx.tools((name,))
    try:
        arguments = from_json(job_input(job), allow_inf_nan=False)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        wrong: str | None = "the prompt is no JSON object: a tool is called with its arguments by name"
    else:
        wrong = argument_faults(tool, arguments)
    if wrong is not None:
        raise StepError(Failure(kind=FailureKind.INVALID_JOB, message=f"tool {tool.name}: {wrong}"))
    return await ctx.ask(call_of(tool, arguments))


def likely_calls(job: Job, ask: _ToolsInput) -> Sequence[int]:
    """One call's results, and the answer."""
    return (0,) if ask.tool is not None or not (ask.tools or ask.agent) else (0, 1_000)


TOOLS = Pattern("tools", 1, tools, _ToolsInput, likely_calls=likely_calls, limits=Limits(calls=64, steps=96, depth=6))
