"""Limits of one job: what it may still spend, and when to warn. Pure; reserved before dispatch, settled by the outcome."""

from __future__ import annotations

from typing import NamedTuple

from services.planner.budgets.rules import micros
from services.planner.job.live import LiveJob
from shared.contracts.budget import MICROS
from shared.contracts.chat import Operation
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.limits import Limits
from shared.contracts.step import Length, StepRequest
from shared.contracts.usage import Usage
from shared.estimates import ANSWER_TOKENS
from shared.patterns.run import Wanted
from shared.scheduling.lengths import PromptLengths

STEP_BYTES = 176 * 1024
"""Largest rendered step. A step may wait in `delays.*`, where base64 makes it a third larger: that, too, must fit a record."""
SOFT = 0.8
"""Fraction of a limit from which on the history warns, where the job names none."""


class _Neared(NamedTuple):
    """`used` of `bound` is spent or reserved."""

    limit: str
    used: float
    bound: float


def estimate_tokens(request: StepRequest, length: Length, prompts: PromptLengths) -> int:
    """Prompt plus what the answer may have; an estimate for reservations and fairness, not for billing."""
    if request.calls_nothing:
        return 0
    prompt = prompts.likely(request.model, length)
    answer = 0 if request.texts or request.operation is Operation.TOOL else request.options.max_tokens or ANSWER_TOKENS
    return prompt + answer


def calls_of(request: StepRequest) -> int:
    """Of models, that an attempt of it makes."""
    return 0 if request.calls_nothing else 1


def filled(given: Limits, defaults: Limits) -> Limits:
    """The job's limits with the planner's defaults where it gave none."""
    return defaults.model_copy(update=given.model_dump(exclude_none=True)) if given.model_fields_set else defaults


def capped(limits: Limits, caps: Limits) -> Limits:
    """Limits of which none exceeds the cap that its tenant has: what a caller asks for can only lower them."""
    most = caps.model_dump(exclude_none=True)
    given = limits.model_dump(exclude_none=True)
    return limits.model_copy(update={name: min(cap, given.get(name, cap)) for name, cap in most.items()}) if most else limits


def refusal(job: LiveJob, want: Wanted, estimated_tokens: int, estimated_micros: int) -> Failure | None:
    """Why this step may not be dispatched, or None. Counts what is settled and what is reserved by open steps."""
    assert want.request is not None, "a sleep costs nothing"
    if want.size > STEP_BYTES:
        return Failure(kind=FailureKind.TOO_LARGE, message=f"the step's input has {want.size} bytes; at most {STEP_BYTES} are allowed")
    limits = job.accepted.limits
    spent = job.usage
    calls = calls_of(want.request)
    open_calls = _open_calls(job) + calls
    running_calls = _open_calls(job, left=True) + calls
    exceeded = (
        ("steps", limits.steps, job.steps_asked + 1),
        ("calls", limits.calls, calls and spent.calls + spent.wasted_calls + running_calls),
        ("width", limits.width, calls and open_calls),
        ("depth", limits.depth, calls and depth_of(want.path)),
        ("tokens", limits.tokens, _tokens(spent) + job.reserved_tokens + estimated_tokens),
    )
    return _first_exceeded(exceeded) or _cost(job, spent, estimated_micros)


def retry_refusal(job: LiveJob, failed: Usage) -> Failure | None:
    """Why an open step may not be tried again, or None. `failed`: what its attempt consumed, not yet in the job's usage."""
    limits = job.accepted.limits
    spent = job.usage.plus(failed.as_waste())
    exceeded = (
        ("calls", limits.calls, spent.calls + spent.wasted_calls + _open_calls(job, left=True)),
        ("tokens", limits.tokens, _tokens(spent) + job.reserved_tokens),
    )
    return _first_exceeded(exceeded) or _cost(job, spent)


def endless(job: LiveJob) -> Failure | None:
    """Set when a pattern goes on asking although every ask is refused: the job ends, or its home would never come to anything else."""
    limit = job.accepted.limits.steps
    if limit is None or job.steps_asked < 2 * limit:
        return None
    return _reached("steps", f"{limit} steps")


def depth_of(path: str) -> int:
    """How many gathers a step lies in: every one adds a slash to the path of calls."""
    return path.count("/")


def late() -> Failure:
    """The job's wall time is over."""
    return _reached("wall_seconds", "wall time")


def soft_wall_seconds(limits: Limits) -> float | None:
    """Seconds after acceptance from which on the wall-time limit is near."""
    return None if limits.wall_seconds is None else limits.wall_seconds * (limits.soft or SOFT)


def neared(job: LiveJob, now: float) -> list[_Neared]:
    """Limits whose soft bound is reached and of which the history has not warned yet. `now`: monotonic seconds."""
    limits, age = job.accepted.limits, now - job.accepted_due - job.idle(now)
    if now >= job.soft_wall_due:  # the very condition of the timer: another one, or another clock, would leave it due for ever
        age = max(age, soft_wall_seconds(limits) or 0.0)
    soft, spent = limits.soft or SOFT, job.usage
    counts = (
        ("calls", limits.calls, spent.calls + spent.wasted_calls + _open_calls(job, left=True)),
        ("steps", limits.steps, job.steps_asked),
        ("tokens", limits.tokens, _tokens(spent) + job.reserved_tokens if limits.tokens is not None else 0),
        ("cost", limits.cost or None, spent.cost + job.reserved_micros / MICROS),
        ("wall_seconds", limits.wall_seconds, age),
    )
    return [
        _Neared(name, used, bound) for name, bound, used in counts if bound is not None and used >= soft * bound and name not in job.neared
    ]


def _open_calls(job: LiveJob, *, left: bool = False) -> int:
    """`left`: also of abandoned steps that run until their nodes say what they used; their tokens stay reserved as long."""
    calls = 0
    for step in job.steps.values():
        calls += (0 if step.request is None else calls_of(step.request)) + (left and step.former is not None)
    for step in job.abandoned.values() if left else ():
        calls += (0 if step.request is None or step.claim is None else calls_of(step.request)) + (step.former is not None)
    return calls


def _tokens(spent: Usage) -> int:
    return spent.prompt_tokens + spent.completion_tokens + spent.wasted_tokens


def _first_exceeded(counts: tuple[tuple[str, int | None, int], ...]) -> Failure | None:
    for name, limit, would_be in counts:
        if limit is not None and would_be > limit:
            return _reached(name, f"{limit} {name}")
    return None


def _cost(job: LiveJob, spent: Usage, more_micros: int = 0) -> Failure | None:
    limit = job.accepted.limits.cost
    if limit is None or micros(spent.cost) + job.reserved_micros + more_micros <= micros(limit):
        return None
    return _reached("cost", f"cost {limit}")


def _reached(limit: str, amount: str) -> Failure:
    return Failure(kind=FailureKind.LIMIT, message=f"the job's limit of {amount} is reached", limit=limit)
