"""Streams that break: the next attempt continues what the caller has been shown, or begins anew when nobody says what that is. Pure.

When an attempt of a stream fails and another is to follow, the stream's reader is asked for its text (`StreamBroken`) and the next
attempt waits for the answer (`StreamPosition`), within a bound. The answer becomes history with `StepRetried`; until then a planner
that takes over asks again, and the reader, who accepts nothing more of the broken attempt, says the same again.

The attempt of a step as it travels. Pure.
"""

from __future__ import annotations

from services.planner.draft import AskPosition, Draft
from services.planner.job.limits import STEP_BYTES
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep, Phase
from services.planner.state.policy import Policy
from shared.agents.cards import prices_of
from shared.contracts.agents import NOBODY
from shared.contracts.base import PriorityClass
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import StepSucceeded, StreamPosition
from shared.contracts.reply import StreamBroken
from shared.contracts.step import Step


def step_of(
    job: LiveJob,
    step: OpenStep,
    home: int,
    lease_seconds: float,
    *,
    served_as: PriorityClass,
    seconds_left: float,
    likely_output: int | None,
) -> Step:
    """Everything that a worker must know. `served_as`: the class of the topic, which may be more urgent than the job's; `seconds_left`
    until the job's deadline, which travels as an instant only where a user gave one.
    """
    request = step.request
    assert request is not None
    accepted = job.accepted
    return Step.of_valid(
        **request.__dict__,
        job=job.id,
        id=step.id,
        attempt=step.attempt,
        home=home,
        tenant=accepted.request.tenant,
        priority_class=served_as,
        prefix=step.prefix or None,
        prefix_tokens=step.prefix_tokens,
        reply=accepted.reply if request.stream else None,
        avoid=step.avoid,
        deadline_at=accepted.deadline_at if accepted.deadline_seconds is None else None,
        seconds_left=None if accepted.deadline_seconds is None else seconds_left,
        lease_seconds=lease_seconds,
        estimated_tokens=step.reserved_tokens,
        likely_output=likely_output,
        missing=step.missing,
        prices=prices_of(request, accepted.team) if accepted.team is not NOBODY else {},
        beyond_window=step.beyond_window,
    )


def ask_position(draft: Draft, job: LiveJob, step: OpenStep, home: int, policy: Policy) -> bool:
    """Ask the reader of this failed attempt's stream, and let the next one wait for him; False when there is nobody to ask.

    `step.due_at` is the end of the backoff before, and the end of the wait after.
    """
    reply = job.accepted.reply
    if step.request is None or not step.request.stream or reply is None or not reply.multiplex:
        return False
    broken = StreamBroken(job=job.id, step=step.id, attempt=step.attempt, home=home, correlation=reply.correlation)
    draft.after.append(AskPosition(reply, broken, job.accepted.request.tenant))
    step.shown, step.backoff_until = None, step.due_at
    step.due_at = max(step.due_at, draft.now + policy.stream_position_seconds)
    return True


def take_position(step: OpenStep, position: StreamPosition) -> bool:
    """Note the reader's answer; false when it comes too late, or again."""
    if step.phase is not Phase.WAITING or step.attempt != position.attempt or step.shown is not None:
        return False
    step.shown, step.shown_tokens = position.text, position.tokens
    step.due_at = step.backoff_until
    return True


def refusal(step: OpenStep, prefix: str) -> Failure | None:
    """Why the step cannot go out with this prefix, or None: both travel in one record."""
    if not prefix or step.request is None or len(step.request.rendered()) + len(prefix.encode()) <= STEP_BYTES:
        return None
    return Failure(kind=FailureKind.TOO_LARGE, message=f"with the broken answer so far the step exceeds {STEP_BYTES} bytes")


def not_continued(outcome: StepSucceeded) -> Failure:
    """Of an answer that does not begin with what the caller has been shown."""
    return Failure(kind=FailureKind.BROKEN_STREAM, message="the node did not continue the broken answer", node=outcome.node)
