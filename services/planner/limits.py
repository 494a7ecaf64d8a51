"""Limits of one job: what it may still spend. Pure; reserved before dispatch, settled by the outcome."""

from __future__ import annotations

from services.planner.context import StepRequest
from services.planner.live import LiveJob
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.limits import Limits
from shared.contracts.usage import Usage

_CHARACTERS_PER_TOKEN = 4
_DEFAULT_ANSWER_TOKENS = 256
STEP_BYTES = 176 * 1024
"""Largest rendered step. A step may wait in `delays.*`, where base64 makes it a third larger: that, too, must fit a record."""


def estimate_tokens(request: StepRequest) -> int:
    """Prompt (4 characters a token) plus what the answer may have; an estimate for reservations and fairness, not for billing."""
    prompt = request.characters() // _CHARACTERS_PER_TOKEN + 1
    answer = 0 if request.texts else request.options.max_tokens or _DEFAULT_ANSWER_TOKENS
    return prompt + answer


def filled(given: Limits, defaults: Limits) -> Limits:
    """The job's limits with the planner's defaults where it gave none."""
    return defaults.model_copy(update=given.model_dump(exclude_none=True)) if given.model_fields_set else defaults


def refusal(job: LiveJob, request: StepRequest, size: int) -> Failure | None:
    """Why this step of `size` bytes may not be dispatched, or None. Counts what is settled and what is reserved by open steps."""
    if size > STEP_BYTES:
        return Failure(kind=FailureKind.TOO_LARGE, message=f"the step's input has {size} bytes; at most {STEP_BYTES} are allowed")
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
    return _first_exceeded(exceeded) or _cost(limits, spent)


def retry_refusal(job: LiveJob, failed: Usage) -> Failure | None:
    """Why an open step may not be tried again, or None. `failed`: what its attempt consumed, not yet in the job's usage."""
    limits = job.accepted.limits
    spent = job.usage.plus(failed.as_waste())
    open_calls = sum(step.request is not None for step in job.steps.values())
    tokens = spent.prompt_tokens + spent.completion_tokens + spent.wasted_tokens + job.reserved_tokens
    exceeded = (("calls", limits.calls, spent.calls + spent.wasted_calls + open_calls), ("tokens", limits.tokens, tokens))
    return _first_exceeded(exceeded) or _cost(limits, spent)


def endless(job: LiveJob) -> Failure | None:
    """Set when a pattern goes on asking although every ask is refused: the job ends, or its home would never come to anything else."""
    limit = job.accepted.limits.steps
    if limit is None or job.steps_asked < 2 * limit:
        return None
    return Failure(kind=FailureKind.LIMIT, message=f"the job's limit of {limit} steps is reached")


def _first_exceeded(counts: tuple[tuple[str, int | None, int], ...]) -> Failure | None:
    for name, limit, would_be in counts:
        if limit is not None and would_be > limit:
            return Failure(kind=FailureKind.LIMIT, message=f"the job's limit of {limit} {name} is reached")
    return None


def _cost(limits: Limits, spent: Usage) -> Failure | None:
    if limits.cost is None or spent.cost <= limits.cost:
        return None
    return Failure(kind=FailureKind.LIMIT, message=f"the job's limit of cost {limits.cost} is reached")
