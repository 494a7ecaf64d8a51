"""single: one call of one model."""

from __future__ import annotations

from shared.contracts.chat import Answer, Operation
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.patterns.context import Context
from shared.patterns.port import Pattern, PatternInput


def request_of(job: Job) -> StepRequest:
    """The job's own input as one step."""
    operation, capability = job.kind, job.needed_capability
    prompt = job.prompt if operation is Operation.GENERATE else None
    return StepRequest.of(
        job, agent=capability, capability=capability, operation=operation, messages=job.turns, prompt=prompt, texts=job.texts or ()
    )


async def single(ctx: Context, job: Job, ask: PatternInput) -> Answer:
    """The answer of one step."""
    return await ctx.ask(request_of(job))


SINGLE = Pattern("single", 1, single, hands_on=True)
