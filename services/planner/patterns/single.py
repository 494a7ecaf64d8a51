"""single: one call of one model."""

from __future__ import annotations

from services.planner.patterns.context import Context, StepRequest
from services.planner.patterns.port import Pattern
from shared.contracts.chat import Answer, Operation
from shared.contracts.job import HeldJob, Job
from shared.inputs import turns


def request_of(job: Job) -> StepRequest:
    """The job's own input as one step."""
    operation = job.kind
    capability = job.needed_capability
    given = job.input if isinstance(job, HeldJob) else None
    return StepRequest(
        agent=capability,
        capability=capability,
        operation=operation,
        model=job.model,
        fallback_models=job.fallback_models,
        messages=turns(job),
        prompt=job.prompt if operation is Operation.GENERATE else None,
        texts=job.texts or (),
        options=job.options,
        format=job.format,
        tools=job.tools,
        needs=job.needs,
        stream=job.stream,
        input=given,
    )


async def single(ctx: Context, job: Job) -> Answer:
    """The answer of one step."""
    return await ctx.ask(request_of(job))


SINGLE = Pattern("single", 1, single)
