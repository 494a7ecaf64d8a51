"""Limits of one job: what it may still spend. Pure; reserved before dispatch, settled by the outcome."""

from __future__ import annotations

from services.planner.context import StepRequest
from services.planner.live import LiveJob
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.limits import Limits

_CHARACTERS_PER_TOKEN = 4
_DEFAULT_ANSWER_TOKENS = 256


def estimate_tokens(request: StepRequest) -> int:
    """Prompt (4 characters a token) plus what the answer may have; an estimate for reservations and fairness, not for billing."""
    prompt = request.characters() // _CHARACTERS_PER_TOKEN + 1
    answer = 0 if request.texts else request.options.max_tokens or _DEFAULT_ANSWER_TOKENS
    return prompt + answer


def filled(given: Limits, defaults: Limits) -> Limits:
    """The job's limits with the planner's defaults where it gave none."""
    return defaults.model_copy(update=given.model_dump(exclude_none=True))


def refusal(job: LiveJob, request: StepRequest) -> Failure | None:
    """Why this step may not be dispatched, or None. Counts what is settled and what is reserved by open steps."""
    limits = job.accepted.limits
    spent = job.usage
    open_calls = sum(step.request is not None for step in job.steps.values())
    tokens = spent.prompt_tokens + spent.completion_tokens + spent.wasted_tokens + job.reserved_tokens
    exceeded = (
        ("steps", limits.steps, job.steps_asked + 1),
        ("calls", limits.calls, spent.calls + spent.wasted_calls + open_calls + 1),
        ("width", limits.width, open_calls + 1),
        ("tokens", limits.tokens, tokens + estimate_tokens(request)),
    )
    for name, limit, would_be in exceeded:
        if limit is not None and would_be > limit:
            return Failure(kind=FailureKind.LIMIT, message=f"the job's limit of {limit} {name} is reached")
    if limits.cost is not None and spent.cost > limits.cost:
        return Failure(kind=FailureKind.LIMIT, message=f"the job's limit of cost {limits.cost} is reached")
    return None
