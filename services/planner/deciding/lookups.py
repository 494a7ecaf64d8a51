"""Lookups: a step that has asked the cache goes on by its word, or without it by its own timer (model: `tests/model/test_served.py`).

All of it is in memory: a successor sends what is asked and unclaimed, as ever.
"""

from __future__ import annotations

from services.planner.deciding import driving
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep
from services.planner.round import Round
from services.planner.state import caching
from shared.contracts.outcome import CacheMissed
from shared.telemetry import metrics


def on_missed(round_: Round, outcome: CacheMissed) -> None:
    """There is no answer: it is sent at once; or another step is about to get one. Of a step that was sent already it says nothing new."""
    found = round_.book.find(outcome.job, outcome.step)
    if found is None or outcome.attempt != found[1].attempt or not found[1].asks_cache:
        return
    job, step = found
    assert step.lookup is not None, "it asks"
    if outcome.follow_seconds is None:
        _send(round_, job, step)
        return
    step.lookup.follows += 1
    step.lookup.following = True
    step.due_at = round_.now + min(outcome.follow_seconds, round_.book.policy.caching.follow_seconds)
    round_.book.arm(job)


def due(round_: Round, job: LiveJob, step: OpenStep) -> None:
    """No word of the cache, or no answer of the step that it follows. Then it asks once more, and perhaps others follow it."""
    lookup, policy = step.lookup, round_.book.policy.caching
    assert lookup is not None, "it asks"
    if lookup.following and lookup.follows < policy.follows:
        lookup.following = False
        caching.ask(round_, step, policy)
    else:
        metrics.CACHE_UNANSWERED.labels("follow" if lookup.follows else "lookup").inc()
        _send(round_, job, step)


def _send(round_: Round, job: LiveJob, step: OpenStep) -> None:
    assert step.lookup is not None, "it asks"
    step.lookup.sent = True
    driving.send(round_, job, step)
    round_.book.arm(job)
