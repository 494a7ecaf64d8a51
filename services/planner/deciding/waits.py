"""Waits: of a pattern for its own timers and for people (reviews). Nothing is held meanwhile: no slot, no lease, no place. Pure.

What people say, and the end of the time, become facts one after the other: what the fold of the review's events refuses is no fact. So of
a decision and an expiry exactly one holds (model: `tests/model/test_reviews.py`). A timer fires only once every outcome is folded that lay
in the log when it became due (`fence`).
"""

from __future__ import annotations

from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep
from services.planner.round import Round
from services.planner.state import dates
from shared.contracts.event import TimerFired, TimerSet
from shared.contracts.ids import digest_of
from shared.contracts.review import ReviewDecided, ReviewEscalated, ReviewGiven, ReviewOpened
from shared.patterns.run import Wanted
from shared.telemetry import logs

log = logs.get(__name__)


def begin(round_: Round, job: LiveJob, want: Wanted) -> None:
    """The pattern sleeps, or asks people."""
    common = {**round_.about(job.id), "step": want.step, "path": want.path}
    age = max(0.0, round_.now - job.accepted_due)
    if want.review is None:
        round_.emit(job, TimerSet(**common, due_at=round_.wall + want.seconds, due_after=age + want.seconds))
        job.steps[want.step].due_at = round_.now + want.seconds
        return
    asked = want.review
    opened = ReviewOpened.of_valid(
        **common,
        **asked.__dict__,
        tenant=job.accepted.request.tenant,
        digest=digest_of(asked.artefact.encode()),
        due_at=round_.wall + asked.deadline_seconds,
        opened_after=age,
    )
    round_.emit(job, opened)
    rearm(round_, job, job.steps[want.step])


def rearm(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """When the next thing happens by itself: all is counted from acceptance, whoever has the home."""
    if step.review is not None:
        step.due_at = max(round_.now, job.accepted_due + step.review.due_after)
    elif step.wakes_after is not None:
        step.due_at = max(round_.now, job.accepted_due + step.wakes_after)
    else:
        step.due_at = round_.now + max(0.0, step.wakes_at - round_.wall)


def on_due(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """The sleep is over, more people may decide, or the default holds."""
    common = {**round_.about(job.id), "step": step.id}
    if step.review is None:
        round_.emit(job, TimerFired(**common, idle_seconds=idle_until(job, round_)))
        return
    asked, ends = step.review.opened, step.review.due_after
    if ends < asked.opened_after + asked.deadline_seconds:
        round_.emit(job, ReviewEscalated(**common))
        rearm(round_, job, step)
    else:
        log.info("review_expired", job=job.id, step=step.id, verdict=asked.default)
        round_.emit(job, ReviewDecided(**common, verdict=asked.default, idle_seconds=idle_until(job, round_)))


def on_given(round_: Round, given: ReviewGiven) -> LiveJob | None:
    """What somebody says becomes a fact, if it counts; returns the job then. Who said it sees by the events what became of it."""
    found = round_.book.find(given.job, given.step)
    review = None if found is None else found[1].review
    refused = "review_unknown" if review is None else review.refusal(given)
    if found is None or review is None or refused is not None:
        log.info("review_not_heard", job=given.job, step=given.step, reason=refused)
        return None
    job, step = found
    decided = ReviewDecided(
        **round_.about(job.id),
        step=step.id,
        verdict=given.verdict,
        text=given.text,
        by=given.by,
        over=review.decides(given),
        idle_seconds=idle_until(job, round_),
    )
    round_.emit(job, decided)
    return job


def idle_until(job: LiveJob, round_: Round) -> float:
    """Idle seconds of the job until now; from here on it is counted anew."""
    idle = job.idle(round_.now)
    job.idle_since = None if job.idle_since is None else round_.now
    return idle


def rest(round_: Round, job: LiveJob) -> None:
    """A job that only waits leaves its place, and what is counted by default stands still; when it goes on it has both again, at once."""
    waits = job.only_waits
    if waits != (job.idle_since is not None):
        job.idle_since = round_.now if waits else None
        dates.count(job)
    round_.book.live_count.rest(job, waits=waits)
