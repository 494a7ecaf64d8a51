"""single: one call of one model."""

from __future__ import annotations

from services.planner.patterns.context import Context, StepRequest
from services.planner.patterns.port import Pattern
from shared.contracts.chat import Answer, ChatMessage, Operation
from shared.contracts.job import Job


def request_of(job: Job) -> StepRequest:
    """The job's own input as one step."""
    operation = job.kind
    capability = job.needed_capability
    messages: tuple[ChatMessage, ...] = ()
    prompt = None
    if operation is Operation.GENERATE:
        prompt = job.prompt
    elif job.messages is not None:
        messages = job.messages
    elif job.prompt is not None:
        messages = (ChatMessage(role="user", content=job.prompt),)
    if job.system and operation is not Operation.EMBED:
        messages = (ChatMessage(role="system", content=job.system), *messages)
    return StepRequest(
        agent=capability,
        capability=capability,
        operation=operation,
        model=job.model,
        fallback_models=job.fallback_models,
        messages=messages,
        prompt=prompt,
        texts=job.texts or (),
        options=job.options,
        format=job.format,
        tools=job.tools,
        needs=job.needs,
        stream=job.stream,
    )


async def single(ctx: Context, job: Job) -> Answer:
    """The answer of one step."""
    return await ctx.ask(request_of(job))


SINGLE = Pattern("single", 1, single)
