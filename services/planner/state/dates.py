"""Dates: when a job's limits of time are over, by the watch of the planner that has it. Pure.

Only a user's deadline is an instant, and so compared with a wall clock; all else is counted from acceptance.
"""

from __future__ import annotations

from math import inf

from services.planner.job.limits import soft_wall_seconds
from services.planner.job.live import LiveJob
from services.planner.round import Round


def begin(job: LiveJob, round_: Round, age_seconds: float) -> None:
    """Set them anew, from an acceptance that was so long ago."""
    accepted = job.accepted
    job.accepted_due = round_.now - age_seconds
    if accepted.deadline_seconds is None:
        job.deadline_due = round_.now + (accepted.deadline_at - round_.wall)
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
