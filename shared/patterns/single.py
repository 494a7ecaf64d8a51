"""single: one call of one model.

When: one good call does it. Measure it before anything else: most jobs need no more.
Not when: its answers are wrong too often, or the job has parts that different agents do better.
Options: none besides the job's own.
Cost: 1 call, depth 1.
Try: tutti submit "What is the capital of France?"

    prompt ─► step ─► answer
"""

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
    own = {"operation": operation, "messages": job.turns, "prompt": prompt, "texts": job.texts or ()}
    return StepRequest.of(job, valid=True, agent=capability, capability=capability, **own)


async def single(ctx: Context, job: Job, ask: PatternInput) -> Answer:
    """The answer of one step."""
    return await ctx.ask(request_of(job))


SINGLE = Pattern("single", 1, single, hands_on=True)
