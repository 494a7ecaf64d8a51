"""The attempt of a step as it travels. Pure."""

from __future__ import annotations

from services.planner.job.live import LiveJob, OpenStep
from shared.contracts.base import PriorityClass
from shared.contracts.step import Step


def step_of(job: LiveJob, step: OpenStep, home: int, lease_seconds: float, *, served_as: PriorityClass, seconds_left: float) -> Step:
    """Everything that a worker must know. `served_as`: the class of the topic, which may be more urgent than the job's; `seconds_left`
    until the job's deadline, which travels as an instant only where a user gave one.
    """
    request = step.request
    assert request is not None
    accepted = job.accepted
    return Step(
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
        missing=step.missing,
        beyond_window=step.beyond_window,
    )
