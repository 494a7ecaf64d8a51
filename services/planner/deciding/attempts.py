"""Attempts: what follows from outcomes and timers. One function an outcome; each changes the book only through its moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.planner.deciding import driving, ending, hedging, ledgers, lookups, streams, turns, waits
from services.planner.draft import Disown
from services.planner.job.limits import late, retry_refusal
from services.planner.job.live import LiveJob
from services.planner.job.open_step import Claim, OpenStep, Phase
from services.planner.round import Round
from services.planner.state import caching
from services.planner.state.book import Book
from shared.contracts import event as events
from shared.contracts.base import ClaimId
from shared.contracts.control import StopClaims
from shared.contracts.event import StepAnswered, StepClaimedBy
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import (
    CacheMissed,
    CancelRequested,
    ClaimsRenewed,
    Outcome,
    StepClaimed,
    StepFailed,
    StepReleased,
    StepRouted,
    StepSucceeded,
    StepUnplaced,
    StreamPosition,
    WorkerStarted,
    incarnation_of,
)
from shared.contracts.review import ReviewGiven
from shared.contracts.usage import Usage
from shared.scheduling.retry import MAY_HAVE_BEGUN, NOT_BEGUN, RetryPolicy, decide
from shared.telemetry import metrics

_FREE_RELEASES = 2
"""Releases of a step that are sent again at once; more are spaced out, so that a confused node cannot spin."""
_MOST_TOLD = 20
"""Times that what a step lacks is recorded, since nodes may come and go for as long as it waits."""
_LOOK_SECONDS = 0.5
"""Between two looks at a node that seems to be silent."""

_OF_NO_JOB = frozenset({ClaimsRenewed, WorkerStarted, *ledgers.MESSAGES})


def on_outcome(round_: Round, outcome: Outcome) -> None:
    """An outcome record, in log order."""
    job = _job_of(round_.book, outcome)
    if job is not None and job.ending is not None and job.settled is None:
        ending.on_outcome(round_, job, outcome)
    else:
        _ON[type(outcome)](round_, outcome)


def on_due(round_: Round, job_id: str) -> None:
    """A timer of this job fired: whatever is due by now happens."""
    job = round_.book.jobs.get(job_id)
    if job is None:
        ledgers.on_due(round_, job_id)
        return
    if job.settled is not None:
        return
    if job.ending is not None:
        ending.finish(round_, job, job.ending)
        return
    if job.deadline_due <= round_.now:
        ending.begin(round_, job, ending.deadline(job))
        return
    if job.wall_due <= round_.now:
        ending.begin(round_, job, late())
        return
    if job.awaits_turn:
        turns.ask(round_, job)
        return
    for step in [s for s in job.steps.values() if s.due_at <= round_.now]:
        if step.id in job.steps:
            _step_due(round_, job, step)
    driving.drive(round_, job)


def give_up(round_: Round, outcome: Outcome) -> None:
    """Folding this outcome fails again and again: the job that it is about ends."""
    if (job := _job_of(round_.book, outcome)) is not None:
        driving.give_up(round_, job)


def _job_of(book: Book, outcome: Outcome) -> LiveJob | None:
    return None if type(outcome) in _OF_NO_JOB else book.jobs.get(getattr(outcome, "job", ""))


def flush_claims(round_: Round) -> None:
    """Append the claims that are folded and not yet in history, except of attempts that have ended meanwhile."""
    book = round_.book
    for job_id in book.claim_news:
        job = book.jobs.get(job_id)
        if job is None:
            continue
        book.tries.at = job_id
        for event in job.claim_news:
            step = job.steps.get(event.step)
            if step is not None and step.claim is not None and step.claim.id == event.claim:
                driving.record_claim(round_, job, step, event)
        job.claim_news.clear()
    book.claim_news.clear()


def _on_routed(round_: Round, outcome: StepRouted) -> None:
    found = round_.book.find(outcome.job, outcome.step)
    if found is None:
        # Answered already (routers tell late), or no longer wanted: then its claim is answered with a stop.
        return
    job, step = found
    if step.phase is Phase.ASKED and outcome.attempt == step.attempt:
        _await_claim(round_, job, step, (outcome.node, outcome.mailbox))


def _await_claim(round_: Round, job: LiveJob, step: OpenStep, routed: tuple[str, int]) -> None:
    """The attempt lies in this node's mailbox: from now on it must be claimed in time."""
    step.routed = routed
    step.due_at = round_.now + round_.book.policy.claim_timeout_seconds
    round_.book.arm(job)


def _on_unplaced(round_: Round, outcome: StepUnplaced) -> None:
    """A router says what no node has; told as an event, so that everybody can see what the job waits for."""
    found = round_.book.find(outcome.job, outcome.step)
    if found is None or found[1].phase is not Phase.ASKED or outcome.attempt != found[1].attempt:
        return
    job, step = found
    if outcome.missing == step.missing or step.told_missing >= _MOST_TOLD:
        return
    event = events.StepWaits(**round_.about(job.id), step=step.id, attempt=step.attempt, missing=outcome.missing)
    round_.emit(job, event)
    if not outcome.missing:
        round_.book.unclaimed.sent(job.id, step, None)


def _on_claimed(round_: Round, outcome: StepClaimed) -> None:
    book = round_.book
    found = book.find(outcome.job, outcome.step)
    if found is None or outcome.attempt != found[1].attempt or not may_claim(found[1], outcome.claim):
        round_.after.append(ending.stop_of(outcome, "not wanted" if found is None else "another claim stands"))
        return
    job, step = found
    if step.phase is Phase.CLAIMED:
        return
    if book.incarnations.superseded(outcome.node, outcome.claim, round_.now):
        round_.after.append(ending.stop_of(outcome, "the node's worker has started again"))
        if step.routed is None:  # else it is being awaited; the mailbox's position may lie behind the record
            _await_claim(round_, job, step, (outcome.node, outcome.mailbox))
        return
    event = StepClaimedBy.of_valid(
        **round_.about(job.id), step=step.id, attempt=outcome.attempt, claim=outcome.claim, node=outcome.node, mailbox=outcome.mailbox,
        lease_seconds=outcome.lease_seconds, why=outcome.why,
    )  # fmt: skip
    job.apply(event)
    job.claim_news.append(event)
    book.claim_news[job.id] = None
    book.claims[outcome.claim] = (job.id, step.id)
    hedging.on_claim(round_, job, step)
    book.lease(step, round_.now, outcome.lease_seconds)
    book.arm(job)


def _on_renewed(round_: Round, outcome: ClaimsRenewed) -> None:
    """A claim that does not stand, although its record was folded before this one: its stop was lost. It is told again."""
    book = round_.book
    unknown: list[ClaimId] = []
    for claim in outcome.claims:
        where = book.claims.get(claim)
        found = book.find(*where) if where else None
        if found is not None and found[1].former is not None and found[1].former.id == claim:
            continue  # it runs beside the attempt that stands
        if found is None or found[1].claim is None or found[1].claim.id != claim:
            unknown.append(claim)
            continue
        job, step = found
        book.lease(step, round_.now, found[1].claim.lease_seconds)
        book.arm(job)
    if unknown and outcome.mailbox is not None:
        round_.after.append(Disown(outcome.mailbox, StopClaims(node=outcome.node, claims=tuple(unknown))))


def _on_started(round_: Round, outcome: WorkerStarted) -> None:
    """Claims of earlier boots of the node are void: nobody runs them any more."""
    if not round_.book.incarnations.started(outcome.node, outcome.incarnation, round_.now):
        return
    for claim, where in list(round_.book.claims.items()):
        found = round_.book.find(*where)
        if found is None or found[1].claim is None or found[1].claim.id != claim or found[1].claim.node != outcome.node:
            continue
        if incarnation_of(claim) < outcome.incarnation:
            _void(round_, *found)


def _void(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """It is not the job's fault that a worker starts again. A step that meets it again and again may well be: then it counts."""
    failure = Failure(kind=FailureKind.NODE_LOST, message="the node's worker has started again")
    if step.releases < _FREE_RELEASES and driving.repeatable(step):
        _ask_again(round_, job, step, failure, usage=Usage())
    else:
        _fail_or_retry(round_, job, step, failure)
    driving.drive(round_, job)


def _on_succeeded(round_: Round, outcome: StepSucceeded) -> None:
    book = round_.book
    found = book.find(outcome.job, outcome.step)
    if found is None or not acceptable(found[1], outcome):
        _waste(round_, outcome)
        return
    job, step = found
    why = driving.unexplained(job, step, outcome.why)
    book.drop_claim(step)
    hedging.answered(round_, job, step, outcome)
    if outcome.answer.served is not None or (step.claim is not None and step.claim.id != outcome.claim):
        round_.stop(job, step)
    if not outcome.answer.text.startswith(step.prefix):
        _fail_or_retry(round_, job, step, streams.not_continued(outcome), usage=outcome.usage)
        driving.drive(round_, job)
        return
    book.funds.close(round_, job, step, outcome.usage)
    driving.learn(book, job, step, outcome.usage)
    caching.answered(round_, job, step, outcome, book.control_of(job))
    event = StepAnswered.of_valid(
        **round_.about(job.id), step=step.id, attempt=outcome.attempt, node=outcome.node, answer=outcome.answer, usage=outcome.usage,
        timings=outcome.timings, why=why,
    )  # fmt: skip
    round_.emit(job, event)
    driving.drive(round_, job)


def acceptable(step: OpenStep, outcome: StepSucceeded) -> bool:
    """Whether history asked for this success; of a stream, only of the claim that stands, whose text the caller has been shown, or of the
    cache while nobody can have shown him anything.
    """
    if step.request is None or outcome.attempt > step.attempt:
        return False
    if not step.request.stream:
        return True
    return step.asks_cache if outcome.answer.served is not None else step.stands(outcome.attempt, outcome.claim)


def _current(step: OpenStep, attempt: int, claim: ClaimId | None) -> bool:
    """Whether this is of the attempt that stands. What a router or worker says of an unclaimed copy does not touch the claimed one."""
    if attempt != step.attempt or step.phase not in (Phase.ASKED, Phase.CLAIMED):
        return False
    return step.claim is None or step.claim.id == claim


def _on_failed(round_: Round, outcome: StepFailed) -> None:
    found = round_.book.find(outcome.job, outcome.step)
    if found is None or not _current(found[1], outcome.attempt, outcome.claim):
        _waste(round_, outcome)
        return
    job, step = found
    step.why = outcome.why
    metrics.ATTEMPTS_FAILED.labels(outcome.failure.kind.value).inc()
    if outcome.failure.kind is FailureKind.CANCELLED and driving.repeatable(step):
        # Nobody here wants it cancelled: an earlier owner's stop, or another claim's.
        _ask_again(round_, job, step, outcome.failure, usage=outcome.usage)
    else:
        _fail_or_retry(round_, job, step, outcome.failure, usage=outcome.usage)
    driving.drive(round_, job)


def _on_released(round_: Round, outcome: StepReleased) -> None:
    found = round_.book.find(outcome.job, outcome.step)
    if found is None or not _current(found[1], outcome.attempt, outcome.claim):
        _waste(round_, outcome)
        return
    job, step = found
    failure = Failure(kind=FailureKind.UNCLAIMED, message=f"released: {outcome.reason[:100]}")
    _ask_again(round_, job, step, failure, usage=Usage())
    driving.drive(round_, job)


def _ask_again(round_: Round, job: LiveJob, step: OpenStep, failure: Failure, *, usage: Usage) -> None:
    """The step was given back: the next attempt begins, uncounted; at once the first times, then spaced out."""
    step.releases += 1
    again = step.releases - _FREE_RELEASES
    wait = 0.0 if again <= 0 else round_.book.policy.retry.delay_seconds(again, round_.book.random.random())
    driving.fail_attempt(round_, job, step, failure, wait=wait, counted=False, usage=usage)


def _on_position(round_: Round, outcome: StreamPosition) -> None:
    """The next attempt continues from there, as soon as the backoff is over."""
    if (found := round_.book.find(outcome.job, outcome.step)) is None:
        return
    job, step = found
    if streams.take_position(step, outcome) and step.due_at <= round_.now:
        driving.retry(round_, job, step)
    driving.drive(round_, job)


def _on_cancel(round_: Round, outcome: CancelRequested) -> None:
    """A cancel may overtake its job, or be of one that waits elsewhere until it is due. Raises InvalidInput."""
    book = round_.book
    job = book.jobs.get(outcome.job)
    if job is None:
        if outcome.job not in book.cancels and not book.knows(outcome.job, round_.now):
            book.cancels.record(round_, outcome)
    elif job.settled is None:
        ending.cancel(round_, job, outcome.reason)


def _waste(round_: Round, outcome: StepSucceeded | StepFailed | StepReleased) -> None:
    if not isinstance(outcome, StepReleased):
        metrics.WASTED_OUTCOMES.inc()
    job = round_.book.jobs.get(outcome.job)
    if job is not None and job.settled is None:
        round_.waste(job, outcome)
    elif not isinstance(outcome, StepReleased):
        round_.book.funds.late_outcome(round_, outcome.claim, outcome.usage)


def _step_due(round_: Round, job: LiveJob, step: OpenStep) -> None:
    if step.request is None:
        waits.on_due(round_, job, step)
        return
    if step.phase is Phase.WAITING:
        driving.retry(round_, job, step)
        return
    if step.phase is Phase.UNFUNDED:
        driving.fail_attempt(round_, job, step, round_.book.funds.late(round_, job, step), wait=None)
        return
    if step.claim is not None:
        lost = _lost(round_, step, step.claim)
        if lost is None:
            driving.hedge(round_, job, step)
            return
        failure = lost
    elif step.routed is not None:
        failure = Failure(kind=FailureKind.UNCLAIMED, message="no worker claimed the step in time", node=step.routed[0])
    elif step.patience_until <= round_.now:
        failure = Failure(kind=FailureKind.UNCHECKED, message="no critic answered in time")
    elif step.asks_cache:
        lookups.due(round_, job, step)
        return
    else:
        round_.dispatches.append(driving.dispatch(round_, job, step))
        return
    round_.stop(job, step)
    _fail_or_retry(round_, job, step, failure)


def _lost(round_: Round, step: OpenStep, claim: Claim) -> Failure | None:
    """Why the claim that was not renewed is lost; None, and a later look, while its node is heard otherwise: it may only be slow."""
    if step.leased_until <= round_.now:
        return Failure(kind=FailureKind.LEASE_EXPIRED, message="the claim was not renewed", node=claim.node)
    left = round_.book.policy.node_lost_seconds - round_.book.policy.silent_seconds(claim.node, round_.now)
    if left <= 0:
        return Failure(kind=FailureKind.NODE_LOST, message="nothing was heard of the node's worker for too long", node=claim.node)
    step.due_at = min(step.leased_until, round_.now + max(left, _LOOK_SECONDS))
    return None


def _fail_or_retry(round_: Round, job: LiveJob, step: OpenStep, failure: Failure, *, usage: Usage | None = None) -> None:
    """Decide by the retry policy and record what follows."""
    defaults = round_.book.policy.retry
    policy = RetryPolicy(job.accepted.limits.attempts or defaults.attempts, defaults.base_seconds, defaults.cap_seconds)
    retry = decide(failure.kind, step.failures + 1, policy, round_.book.random.random())
    if retry is not None and failure.kind not in NOT_BEGUN and not driving.repeatable(step):
        retry, failure = None, failure.model_copy(update={"message": f"{failure.message}; {MAY_HAVE_BEGUN}"})
    if retry is not None and (refused := retry_refusal(job, usage or Usage())) is not None:
        retry, failure = None, refused
    if retry is not None and retry.elsewhere and failure.node is None and step.claim is not None:
        failure = failure.model_copy(update={"node": step.claim.node})
    # How long an endpoint does not want to be asked holds up its node, not the job: another node may be free.
    driving.fail_attempt(round_, job, step, failure, wait=None if retry is None else retry.delay_seconds, usage=usage)


def may_claim(step: OpenStep, claim: ClaimId) -> bool:
    """The first claim in the log stands."""
    return step.phase is Phase.ASKED or (step.claim is not None and step.claim.id == claim)


_ON: dict[type, Callable[[Round, Any], None]] = {
    StepRouted: _on_routed,
    StepUnplaced: _on_unplaced,
    StepClaimed: _on_claimed,
    ClaimsRenewed: _on_renewed,
    WorkerStarted: _on_started,
    StepSucceeded: _on_succeeded,
    StepFailed: _on_failed,
    StepReleased: _on_released,
    StreamPosition: _on_position,
    CacheMissed: lookups.on_missed,
    CancelRequested: _on_cancel,
    ReviewGiven: driving.on_review,
    **dict.fromkeys(ledgers.MESSAGES, ledgers.on_message),
}
