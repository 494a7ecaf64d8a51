"""Dates: when a job's limits of time are over, by the watch of the planner that has it. Pure.

Only a user's deadline is an instant, and so compared with a wall clock; all else is counted from acceptance.
"""

from __future__ import annotations

from math import inf

from services.planner.draft import Draft
from services.planner.job.limits import soft_wall_seconds
from services.planner.job.live import LiveJob


def begin(job: LiveJob, draft: Draft, age_seconds: float) -> None:
    """Set them anew, from an acceptance that was so long ago."""
    accepted = job.accepted
    job.accepted_due = draft.now - age_seconds
    if accepted.deadline_seconds is None:
        job.deadline_due = draft.now + (accepted.deadline_at - draft.wall)
    else:
        job.deadline_due = job.accepted_due + accepted.deadline_seconds
    count(job)


def count(job: LiveJob) -> None:
    """While a job only waits for people and for its own timers, a deadline that nobody named stands still, and so does wall time."""
    accepted, limits = job.accepted, job.accepted.limits
    begun = inf if job.idle_since is not None else job.accepted_due + job.idle_seconds
    if job.stands_still and accepted.deadline_seconds is not None:
        job.deadline_due = begun + accepted.deadline_seconds
    if limits.wall_seconds is not None:
        job.wall_due = begun + limits.wall_seconds
        job.soft_wall_due = begun + (soft_wall_seconds(limits) or 0.0)
