"""Hedging: an interactive step that takes longer than nearly all before it gets a second attempt beside the one that runs. Pure.

To history it is an attempt that is given up, uncounted, and the next one: who folds it needs no new rule, and a step that does not stream
takes any answer that was asked for (law 2). Only this planner knows that the former goes on: it is not told to stop while nobody has
answered, and its renewals are known. The model is `tests/model/test_hedges.py`.

Never: what streams (its reader has seen, or may see, another text), what must not be done twice, tools; where tokens or costs are limited,
of the job or of its tenant's day (only one attempt of a step reserves); where no other node has room: a hedge takes nobody's place.
"""

from __future__ import annotations

from math import inf

from services.planner.draft import StopAnywhere
from services.planner.job.limits import retry_refusal
from services.planner.job.live import LiveJob
from services.planner.job.open_step import Claim, OpenStep, Phase
from services.planner.round import OVERTAKEN, Round
from services.planner.state.book import Book
from shared.contracts.base import PriorityClass
from shared.contracts.chat import MODEL_CALLS
from shared.contracts.control import StopStep
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import StepSucceeded
from shared.contracts.step import StepRequest
from shared.contracts.usage import Usage
from shared.telemetry import metrics

_LOOK_SECONDS = 1.0
"""Until it is looked for room again."""
SLOW = "it takes longer than nearly all before it: another attempt runs beside it"


def on_claim(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """A claim stands from now on."""
    step.claimed_at, step.hedge_at = round_.now, inf
    request = step.request
    if request is None or step.former is not None or not may_be_hedged(job, request):
        return
    step.hedge_at = round_.now + round_.book.hedging.after_seconds(request)


def may_be_hedged(job: LiveJob, request: StepRequest) -> bool:
    """Whether a step of this job may run twice at once, for its caller's sake."""
    alone = request.stream or not request.idempotent or request.operation not in MODEL_CALLS
    limits = job.accepted.limits
    counted = limits.tokens is not None or limits.cost is not None
    return job.accepted.priority_class is PriorityClass.INTERACTIVE and not alone and not counted


def due(round_: Round, job: LiveJob, step: OpenStep) -> Failure | None:
    """Why the attempt that runs is given up beside another one; None: it is not, or not yet."""
    if round_.now < step.hedge_at or step.claim is None:
        return None
    step.hedge_at = round_.now + _LOOK_SECONDS
    limits = round_.book.funds.tenants.get(job.accepted.request.tenant)
    if retry_refusal(job, Usage(calls=1)) is not None or (limits is not None and limits.daily):
        step.hedge_at = inf
        return None
    return Failure(kind=FailureKind.MODEL_TIMEOUT, message=SLOW, node=step.claim.node)


def begun(book: Book, job: LiveJob, step: OpenStep, former: Claim) -> None:
    """The next attempt is asked for; the claim before goes on."""
    step.former, step.former_attempt, step.hedge_at = former, step.attempt - 1, inf
    book.claims[former.id] = (job.id, step.id)
    metrics.HEDGES.labels("begun").inc()


def answered(round_: Round, job: LiveJob, step: OpenStep, outcome: StepSucceeded) -> None:
    """It has an answer: whoever else runs is told to stop, and what that has used is charged when it is told."""
    request = step.request
    if request is not None and not request.stream and step.claim is not None and step.claim.id == outcome.claim:
        round_.book.hedging.learn(request, round_.now - step.claimed_at)
    if step.former is None:
        return
    if step.former.id != outcome.claim:
        metrics.HEDGES.labels("won").inc()
        round_.stop_former(job, step)
        return
    metrics.HEDGES.labels("lost").inc()
    round_.book.claims.pop(step.former.id, None)
    if step.claim is not None:
        round_.book.funds.expect(job, step.claim.id)
    elif step.phase is Phase.ASKED and step.routed is None:
        control = StopStep(job=job.id, step=step.id, attempt=step.attempt, reason=OVERTAKEN)
        round_.after.append(StopAnywhere(control))
