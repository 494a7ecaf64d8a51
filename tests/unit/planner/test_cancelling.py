"""Cancelling a job whose attempts run: stopped at once, awaited for a moment, what they used is in the result."""

from __future__ import annotations

import pytest

from services.planner.engine.policy import Policy
from services.planner.round import StopAnywhere
from services.planner.sending.messages import of_effect
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Status
from shared.contracts.usage import Usage
from shared.topics import Topics, TopicSettings
from tests.unit.planner.desk import (
    ONE_CALL,
    Desk,
    claimed,
    dispatched,
    failed,
    kinds,
    opened,
    published,
    released,
    routed,
    sent_after,
    stops,
    succeeded,
    two_steps,
)

POLICY = Policy(cancel_seconds=0.5)


def cancelling(**job: object) -> Desk:
    """A desk whose job's only step runs, and which has just been cancelled."""
    desk = Desk(POLICY)
    desk.submit(**(job or {"prompt": "q"}))
    desk.say(claimed(desk.job, desk.step))
    round_ = desk.say(CancelRequested(job=desk.job.id, reason="enough"))
    assert (kinds(round_), stops(round_), published(round_)) == (["cancel_recorded"], [("n1", 1, None)], [])
    return desk


def test_what_the_stopped_attempt_used_is_in_the_result() -> None:
    """As waste: nobody got an answer for it."""
    desk = cancelling()
    [result] = published(desk.say(failed(desk.job, desk.step, FailureKind.CANCELLED)))
    assert result.status is Status.CANCELLED
    assert result.usage == Usage(wasted_calls=1, wasted_tokens=ONE_CALL.prompt_tokens + ONE_CALL.completion_tokens)


def test_an_answer_that_comes_after_the_cancel_is_used_up_and_not_used() -> None:
    """Its pattern asks for nothing more."""
    desk = cancelling(**two_steps())
    round_ = desk.say(succeeded(desk.job, desk.step))
    assert kinds(round_) == ["work_wasted", "job_settled"]
    assert published(round_)[0].status is Status.CANCELLED
    assert dispatched(round_) == sent_after(round_) == []


def test_a_worker_that_says_nothing_delays_the_end_by_a_bound() -> None:
    """And not by its lease."""
    desk = cancelling()
    assert desk.wait(0.45).empty
    [result] = published(desk.wait(0.1))
    assert (result.status, result.usage) == (Status.CANCELLED, Usage())


@pytest.mark.parametrize("claim", ["other", None])
def test_other_claims_are_counted_and_not_waited_for(claim: str | None) -> None:
    """A duplicate that ends first does not end the wait for the claim that stands."""
    desk = cancelling()
    assert published(desk.say(failed(desk.job, desk.step, FailureKind.CANCELLED, claim=claim))) == []
    [result] = published(desk.say(failed(desk.job, desk.step, FailureKind.CANCELLED)))
    assert result.usage.wasted_calls == 2


def test_a_claim_that_comes_after_the_cancel_is_stopped() -> None:
    """It was on its way; the job wants it no more."""
    desk = cancelling()
    assert stops(desk.say(claimed(desk.job, desk.step, "late", node="n2"))) == [("n2", 1, "late")]
    assert stops(desk.say(claimed(desk.job, desk.step))) == []


def test_a_release_ends_the_wait() -> None:
    """A draining worker gave the step back before the stop came."""
    desk = cancelling()
    assert published(desk.say(released(desk.job, desk.step, claim="c1")))[0].status is Status.CANCELLED


def test_a_take_over_stops_and_waits_anew() -> None:
    """The decision is history, and so is the claim; the bound is a new one."""
    desk = cancelling()
    round_ = desk.take_over()
    assert (stops(round_), published(round_)) == ([("n1", 1, None)], [])
    [result] = published(desk.say(failed(desk.job, desk.step, FailureKind.CANCELLED)))
    assert (result.status, result.usage.wasted_calls) == (Status.CANCELLED, 1)
    desk = cancelling()
    desk.take_over()
    assert published(desk.wait(0.6))[0].status is Status.CANCELLED


def test_a_snapshot_holds_the_decision() -> None:
    """A job may be written again while it waits."""
    desk = cancelling()
    before = len(desk.history)
    desk.snapshot(desk.job)
    replay, _, round_ = desk.replayed(desk.history[before:])
    replay.finish()
    assert (stops(round_), dispatched(round_)) == ([("n1", 1, None)], [])


def test_nothing_runs_nothing_is_awaited() -> None:
    """A step that waits somewhere is stopped where it may be, and the job ends at once."""
    desk = opened(POLICY)
    assert published(desk.say(CancelRequested(job=desk.job.id)))[0].status is Status.CANCELLED


def test_a_step_that_waits_for_a_router_is_stopped_at_every_node() -> None:
    """Nobody knows who will get it; once it is routed only that node is told."""
    desk = opened(POLICY)
    round_ = desk.say(CancelRequested(job=desk.job.id, reason="enough"))
    [everywhere] = [effect for effect in round_.after if isinstance(effect, StopAnywhere)]
    assert (everywhere.control.node, everywhere.control.attempt, everywhere.control.claim) == (None, 1, None)
    topics = Topics(TopicSettings(work_partitions=3))
    assert [message.partition for message in of_effect(everywhere, topics)] == [0, 1, 2]
    desk.submit()
    desk.say(routed(desk.job, desk.step, node="n5"))
    round_ = desk.say(CancelRequested(job=desk.job.id))
    assert not [effect for effect in round_.after if isinstance(effect, StopAnywhere)]
