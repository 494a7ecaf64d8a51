"""Cancelling: running attempts are stopped at once; the job's end waits a moment for what they have used, so that its result tells it.

A step that still waits for a router may come to any node: all are told, and the one that gets it does not begin it.

`CancelRecorded` is the decision: from then on nothing is asked, accepted or retried. A planner that takes over stops and waits anew.
"""

from __future__ import annotations

from services.planner.engine.book import Book
from services.planner.job.live import LiveJob, Phase
from services.planner.round import Round, Stop, StopAnywhere
from shared.contracts.control import StopStep
from shared.contracts.event import CancelRecorded, WorkWasted
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import Outcome, StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.contracts.result import Status

_REASON_CHARACTERS = 200


def cancel(book: Book, round_: Round, job: LiveJob, reason: str) -> None:
    """Somebody wants this live job to end."""
    reason = reason[:_REASON_CHARACTERS]
    _stop_unrouted(round_, job, reason)
    if all(step.claim is None for step in job.steps.values()):
        finish(book, round_, job, reason)
        return
    book.emit(round_, job, CancelRecorded(epoch=book.epoch, job=job.id, at=round_.wall, reason=reason))
    wait(book, round_, job)


def wait(book: Book, round_: Round, job: LiveJob) -> None:
    """Stop what may run, and wait for those that are known to; the end comes at once when there is none."""
    assert job.cancelled is not None
    job.awaited = {step.claim.id for step in job.steps.values() if step.claim is not None}
    if not job.awaited:
        finish(book, round_, job, job.cancelled)
        return
    for step in job.steps.values():
        book.stop(round_, job.id, step)
        if step.claim is not None:
            book.claims[step.claim.id] = (job.id, step.id)
    job.deadline_due = min(job.deadline_due, round_.now + book.policy.cancel_seconds)
    book.arm(job)


def finish(book: Book, round_: Round, job: LiveJob, reason: str) -> None:
    """The end of a cancelled job."""
    book.end(round_, job, Status.CANCELLED, Failure(kind=FailureKind.CANCELLED, message=reason))


def on_outcome(book: Book, round_: Round, job: LiveJob, outcome: Outcome) -> None:
    """An outcome of a job that is being cancelled: counted, never used; the last that was awaited ends the job."""
    assert job.cancelled is not None
    if isinstance(outcome, StepClaimed):
        if outcome.claim not in job.awaited:
            round_.after.append(_stop(outcome, job.cancelled))
        return
    if not isinstance(outcome, StepSucceeded | StepFailed | StepReleased):
        return
    if not isinstance(outcome, StepReleased) and outcome.usage.calls:
        event = WorkWasted(epoch=book.epoch, job=job.id, at=round_.wall, step=outcome.step, attempt=outcome.attempt, usage=outcome.usage)
        book.emit(round_, job, event)
        if (step := job.steps.get(outcome.step)) is not None:
            book.funds.settle(round_, job, step, outcome.usage)
        else:
            book.funds.waste(round_, job, outcome.usage)
    if outcome.claim is not None:
        job.awaited.discard(outcome.claim)
    if not job.awaited:
        finish(book, round_, job, job.cancelled)


def _stop_unrouted(round_: Round, job: LiveJob, reason: str) -> None:
    for step in job.steps.values():
        if step.phase is Phase.ASKED and step.routed is None:
            round_.after.append(StopAnywhere(StopStep(job=job.id, step=step.id, attempt=step.attempt, reason=reason)))


def _stop(claimed: StepClaimed, reason: str) -> Stop:
    control = StopStep(
        node=claimed.node, job=claimed.job, step=claimed.step, attempt=claimed.attempt, claim=claimed.claim, reason=reason
    )  # fmt: skip
    return Stop(claimed.mailbox, control)
