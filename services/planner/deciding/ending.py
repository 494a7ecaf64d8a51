"""Ending: a job that ends without an answer while attempts of it run. They are stopped at once; the end waits a moment for what they
have used, so that the result and the tenant's budget tell it: at most until that long after the deadline.

A step that still waits for a router may come to any node: all are told, and the one that gets it does not begin it. Not at a deadline,
which every step carries itself; of one that lay unread until after it, the claim is answered with a stop like any that nobody knows.

`CancelRecorded`, or `JobStopped`, is the decision: from then on nothing is asked, accepted or retried. A planner that takes over stops
and waits anew.
"""

from __future__ import annotations

from services.planner.deciding import waits
from services.planner.draft import Stop, StopAnywhere
from services.planner.job.live import LiveJob
from services.planner.job.open_step import Phase
from services.planner.round import Round
from services.planner.state.cancels import REASON_CHARACTERS
from shared.contracts.chat import FinishReason
from shared.contracts.control import StopStep
from shared.contracts.event import CancelRecorded, JobStopped
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import Outcome, StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.contracts.result import Status

_MOST_MISSING = 64
"""Things named that no node has."""


def deadline(job: LiveJob) -> Failure:
    """Says what the job waited for, if it was its turn, or a node that is not there."""
    missing = tuple(dict.fromkeys(phrase for step in job.steps.values() for phrase in step.missing))
    waited = f" while it waited for a node; missing: {', '.join(missing)}" if missing else " while it waited for its turn" * job.awaits_turn
    return Failure(kind=FailureKind.DEADLINE, message="the deadline passed" + waited, missing=missing[:_MOST_MISSING])


def cancel(round_: Round, job: LiveJob, reason: str) -> None:
    """Somebody wants this live job to end."""
    begin(round_, job, Failure(kind=FailureKind.CANCELLED, message=reason[:REASON_CHARACTERS]))


def begin(round_: Round, job: LiveJob, why: Failure) -> None:
    """The live job is to end with this failure: at once when nothing is known to run."""
    if why.kind is not FailureKind.DEADLINE:
        _stop_unrouted(round_, job, why.message)
    if not _runs(job):
        finish(round_, job, why)
        return
    if why.kind is FailureKind.CANCELLED:
        round_.emit(job, CancelRecorded(**round_.about(job.id), reason=why.message))
    else:
        round_.emit(job, JobStopped(**round_.about(job.id), failure=why))
    wait(round_, job)


def wait(round_: Round, job: LiveJob) -> None:
    """Stop what may run, and wait for those that are known to; the end comes at once when there is none. One that only waited goes on."""
    waits.rest(round_, job)
    round_.stop_abandoned(job)
    job.ends_due = min(round_.now, job.deadline_due) + round_.book.policy.cancel_seconds
    round_.book.arm(job)
    _finish_if_idle(round_, job)


def on_outcome(round_: Round, job: LiveJob, outcome: Outcome) -> None:
    """An outcome of a job that is to end: counted, never used; the last that is awaited ends the job."""
    if isinstance(outcome, StepClaimed):
        step = job.abandoned.get(outcome.step)
        if step is None or not step.stands(outcome.attempt, outcome.claim):
            assert job.ending is not None
            round_.after.append(stop_of(outcome, job.ending.message))
    elif isinstance(outcome, StepSucceeded | StepFailed | StepReleased):
        round_.waste(job, outcome)
        _finish_if_idle(round_, job)


def finish(round_: Round, job: LiveJob, why: Failure) -> None:
    """The end. Where a limit is the cause, the best answer so far is the result."""
    best = job.run.context.best_answer
    if why.kind is FailureKind.LIMIT and best is not None:
        round_.settle(job, Status.SUCCEEDED, None, best.model_copy(update={"finish_reason": FinishReason.BUDGET}))
    else:
        round_.settle(job, _STATUS.get(why.kind, Status.FAILED), why, None)


_STATUS = {FailureKind.CANCELLED: Status.CANCELLED, FailureKind.DEADLINE: Status.EXPIRED}
"""A step's deadline is the job's."""


def _finish_if_idle(round_: Round, job: LiveJob) -> None:
    if not job.abandoned:
        assert job.ending is not None
        finish(round_, job, job.ending)


def _runs(job: LiveJob) -> bool:
    return any(step.claim is not None for steps in (job.steps, job.abandoned) for step in steps.values())


def _stop_unrouted(round_: Round, job: LiveJob, reason: str) -> None:
    for step in job.steps.values():
        seen = step.request is not None and step.request.is_critique
        if step.phase is Phase.ASKED and step.routed is None and not (seen or step.asks_cache):
            round_.after.append(StopAnywhere(StopStep(job=job.id, step=step.id, attempt=step.attempt, reason=reason)))


def stop_of(claimed: StepClaimed, reason: str) -> Stop:
    """That this claim of an attempt does not stand."""
    control = StopStep(
        node=claimed.node, job=claimed.job, step=claimed.step, attempt=claimed.attempt, claim=claimed.claim, reason=reason
    )  # fmt: skip
    return Stop(claimed.mailbox, control)
