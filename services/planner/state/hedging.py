"""Hedging: an interactive step that takes longer than nearly all before it gets a second attempt beside the one that runs. Pure.

To history it is an attempt that is given up, uncounted, and the next one: who folds it needs no new rule, and a step that does not stream
takes any answer that was asked for (law 2). Only this planner knows that the former goes on: it is not told to stop while nobody has
answered, and its renewals are known. The model is `tests/model/test_hedges.py`.

Never: what streams (its reader has seen, or may see, another text), what must not be done twice, tools; where tokens or costs are limited,
of the job or of its tenant's day (only one attempt of a step reserves); where no other node has room: a hedge takes nobody's place.
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil, inf, log2
from typing import Protocol

from services.planner.job.limits import retry_refusal
from services.planner.job.live import LiveJob
from services.planner.job.open_step import Claim, OpenStep, Phase
from services.planner.round import Round, Stop, StopAnywhere
from services.planner.state.funds import Funds
from shared.contracts.base import ClaimId, PriorityClass, StepId
from shared.contracts.chat import MODEL_CALLS
from shared.contracts.control import StopStep
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import StepSucceeded
from shared.contracts.step import StepRequest
from shared.contracts.usage import Usage
from shared.telemetry import metrics

QUANTILE = 0.99
MOST_KEPT = 256
"""Pairs of capability and model of which durations are known."""
_BUCKETS_AN_OCTAVE, _LEAST_SECONDS, _BUCKETS = 4, 0.01, 76
"""From 10 ms to 5,000 s; a bucket is 19 % wide."""
_HALVED_AT = 2_000
"""Durations counted; then all count half, so that the newest count most."""
_MOST_SAVED = 5.0
"""Hedges that may follow one another after a quiet time."""
_LOOK_SECONDS = 1.0
"""Until it is looked for room again."""
SLOW = "it takes longer than nearly all before it: another attempt runs beside it"
_LOST = "another attempt of the step was first"


class Durations:
    """How long calls have taken, as a histogram. Bounded."""

    def __init__(self) -> None:
        self._counts = [0.0] * _BUCKETS
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One took so long."""
        self._counts[min(_BUCKETS - 1, max(0, ceil(log2(max(seconds, 1e-9) / _LEAST_SECONDS) * _BUCKETS_AN_OCTAVE)))] += 1
        self.total += 1
        if self.total >= _HALVED_AT:
            self._counts = [count / 2 for count in self._counts]
            self.total /= 2

    def quantile(self, share: float) -> float:
        """So large a share took no longer than this, in seconds, by at most a bucket too much."""
        left = share * self.total
        for number, count in enumerate(self._counts):
            left -= count
            if left <= 0:
                return float(_LEAST_SECONDS * 2.0 ** (number / _BUCKETS_AN_OCTAVE))
        return inf


class Hedging:
    """When, and how often, this home begins a second attempt. In memory only: a successor learns anew."""

    def __init__(self, share: float, samples: int, least_seconds: float) -> None:
        """`share` of the steps that might be hedged are at most; before `samples` durations nothing is known."""
        self._share, self._samples, self._least_seconds = share, samples, least_seconds
        self._known: OrderedDict[tuple[str, str], Durations] = OrderedDict()
        self._saved = 0.0

    def learn(self, request: StepRequest, seconds: float) -> None:
        """A call of this kind has taken so long."""
        key = (request.capability, request.model)
        known = self._known.setdefault(key, Durations())
        self._known.move_to_end(key)
        known.add(seconds)
        if len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)

    def after_seconds(self, request: StepRequest) -> float:
        """One of this kind that takes longer than so many seconds is slow; inf while that is not known."""
        self._saved = min(_MOST_SAVED, self._saved + self._share)
        known = self._known.get((request.capability, request.model))
        if known is None or known.total < self._samples:
            return inf
        return max(self._least_seconds, known.quantile(QUANTILE))

    def take(self) -> bool:
        """One more, if there may be one."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


class KnowsClaims(Protocol):
    """What is needed of a book."""

    claims: dict[ClaimId, tuple[str, StepId]]
    hedging: Hedging
    funds: Funds


def on_claim(book: KnowsClaims, round_: Round, job: LiveJob, step: OpenStep) -> None:
    """A claim stands from now on."""
    step.claimed_at, step.hedge_at = round_.now, inf
    request = step.request
    if request is None or step.former is not None or not may_be_hedged(job, request):
        return
    step.hedge_at = round_.now + book.hedging.after_seconds(request)


def may_be_hedged(job: LiveJob, request: StepRequest) -> bool:
    """Whether a step of this job may run twice at once, for its caller's sake."""
    alone = request.stream or not request.idempotent or request.operation not in MODEL_CALLS
    limits = job.accepted.limits
    counted = limits.tokens is not None or limits.cost is not None
    return job.accepted.priority_class is PriorityClass.INTERACTIVE and not alone and not counted


def due(book: KnowsClaims, round_: Round, job: LiveJob, step: OpenStep) -> Failure | None:
    """Why the attempt that runs is given up beside another one; None: it is not, or not yet."""
    if round_.now < step.hedge_at or step.claim is None:
        return None
    step.hedge_at = round_.now + _LOOK_SECONDS
    limits = book.funds.tenants.get(job.accepted.request.tenant)
    if retry_refusal(job, Usage(calls=1)) is not None or (limits is not None and limits.daily):
        step.hedge_at = inf
        return None
    return Failure(kind=FailureKind.MODEL_TIMEOUT, message=SLOW, node=step.claim.node)


def begun(book: KnowsClaims, job: LiveJob, step: OpenStep, former: Claim) -> None:
    """The next attempt is asked for; the claim before goes on."""
    step.former, step.former_attempt, step.hedge_at = former, step.attempt - 1, inf
    book.claims[former.id] = (job.id, step.id)
    metrics.HEDGES.labels("begun").inc()


def answered(book: KnowsClaims, round_: Round, job: LiveJob, step: OpenStep, outcome: StepSucceeded) -> None:
    """It has an answer: whoever else runs is told to stop, and what that has used is charged when it is told."""
    request = step.request
    if request is not None and not request.stream and step.claim is not None and step.claim.id == outcome.claim:
        book.hedging.learn(request, round_.now - step.claimed_at)
    if step.former is None:
        return
    if step.former.id != outcome.claim:
        metrics.HEDGES.labels("won").inc()
        stop_former(book, round_, job, step)
        return
    metrics.HEDGES.labels("lost").inc()
    book.claims.pop(step.former.id, None)
    if step.claim is not None:
        book.funds.expect(job, step.claim.id)
    elif step.phase is Phase.ASKED and step.routed is None:
        control = StopStep(job=job.id, step=step.id, attempt=step.attempt, reason=_LOST)
        round_.after.append(StopAnywhere(control))


def stop_former(book: KnowsClaims, round_: Round, job: LiveJob, step: OpenStep) -> None:
    """The attempt beside is not wanted any longer. Lost with this planner, the stop is an answer to the claim's next renewal."""
    former = step.former
    if former is not None and book.claims.pop(former.id, None) is not None:
        control = StopStep(
            node=former.node, job=job.id, step=step.id, attempt=step.former_attempt, claim=former.id, reason=_LOST
        )  # fmt: skip
        round_.after.append(Stop(former.mailbox, control))
