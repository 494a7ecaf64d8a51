"""Attempts: claims, leases, what is accepted as the answer, and how a job ends."""

from __future__ import annotations

import math

import pytest

from services.planner.deciding import attempts
from services.planner.job.open_step import Phase
from services.planner.round import Round
from services.planner.state.policy import Policy
from shared.contracts.chat import FinishReason
from shared.contracts.event import AttemptFailed, WorkWasted
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import CancelRequested, StepFailed
from shared.contracts.result import Status
from shared.contracts.usage import Usage
from tests.unit.planner.desk import (
    ONE_CALL,
    Desk,
    answered,
    claimed,
    failed,
    kinds,
    last,
    opened,
    published,
    released,
    renewed,
    routed,
    stops,
    succeeded,
    two_steps,
)

# Claims


def test_a_claim_is_recorded_and_leased() -> None:
    """From then on the lease is the step's timer."""
    desk = opened()
    assert kinds(desk.say(claimed(desk.job, desk.step))) == ["step_claimed"]
    assert desk.step.phase is Phase.CLAIMED
    assert desk.step.leased_until == desk.now + 20.0
    assert desk.book.claims == {"c1": (desk.job.id, desk.step.id)}


def test_the_first_claim_stands_and_the_second_is_stopped() -> None:
    """Two claims of an attempt (law 3): the first in the log stands."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step, "first"))
    round_ = desk.say(claimed(desk.job, desk.step, "second", node="n2"))
    assert stops(round_) == [("n2", 1, "second")]
    assert kinds(round_) == []
    assert desk.step.claim is not None
    assert desk.step.claim.id == "first"


def test_the_same_claim_again_changes_nothing() -> None:
    """A repeated record is no second claim."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step))
    assert desk.say(claimed(desk.job, desk.step)).empty


def test_a_claim_of_an_older_attempt_or_unknown_step_is_stopped() -> None:
    """Nobody waits for it."""
    desk = opened()
    job, step = desk.job, desk.step
    desk.say(claimed(job, step), failed(job, step))
    desk.wait(60.0)
    assert step.attempt == 2
    assert stops(desk.say(claimed(job, step, "late", attempt=1))) == [("n1", 1, "late")]
    assert stops(desk.say(claimed(job, step, "early", attempt=3))) == [("n1", 3, "early")]
    desk.say(CancelRequested(job=job.id))
    assert stops(desk.say(claimed(job, step, "after", attempt=2))) == [("n1", 2, "after")]


def test_a_claim_that_ended_before_it_was_recorded_is_never_recorded() -> None:
    """Most short steps: claim and success in one round cost one event."""
    desk = opened()
    job, step = desk.job, desk.step
    assert kinds(desk.say(claimed(job, step), succeeded(job, step))) == ["step_answered", "job_settled"]
    assert desk.book.claims == {}
    desk.submit()
    job, step = desk.job, desk.step
    assert "step_claimed" not in kinds(desk.say(claimed(job, step), failed(job, step)))


def test_a_claim_that_is_stopped_is_recorded_even_when_it_is_news() -> None:
    """The stop may die with the planner; only history tells the successor where it must go (law 9)."""
    desk = opened()
    round_ = Round.of(desk.book, 1_700_000_000.0, desk.now)
    attempts.on_outcome(round_, claimed(desk.job, desk.step))
    round_.settle(desk.job, Status.EXPIRED, None, None)
    assert kinds(round_) == ["step_claimed", "job_settled"]
    assert stops(round_) == [("n1", 1, None)]


def test_a_lease_that_is_renewed_lives_on() -> None:
    """A full lease from each renewal; other claims' renewals do nothing."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step))
    desk.wait(15.0)
    desk.say(renewed("other", "c1"))
    assert desk.step.leased_until == desk.now + 20.0
    desk.wait(15.0)
    desk.say(renewed("other"))
    assert kinds(desk.wait(4.9)) == []
    assert kinds(desk.wait(0.2)) == ["attempt_failed"]


def test_an_expired_lease_is_retried_elsewhere_and_stopped() -> None:
    """The node may still run it: it is told to stop, and avoided."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step))
    round_ = desk.wait(20.1)
    event = last(desk, AttemptFailed)
    assert isinstance(event, AttemptFailed)
    assert (event.failure.kind, event.counted) == (FailureKind.LEASE_EXPIRED, True)
    assert stops(round_) == [("n1", 1, None)]
    assert desk.step.avoid == ("n1",)
    assert desk.book.claims == {}


# Waiting for a claim


def test_waiting_for_a_node_is_not_loss() -> None:
    """Before StepRouted only the long limit for being placed runs; the claim timeout starts with StepRouted."""
    desk = opened(Policy(claim_timeout_seconds=5.0, resend_seconds=600.0))
    assert desk.wait(500.0).empty
    desk.say(routed(desk.job, desk.step))
    assert desk.wait(4.9).empty
    round_ = desk.wait(0.2)
    event = last(desk, AttemptFailed)
    assert isinstance(event, AttemptFailed)
    assert event.failure.kind is FailureKind.UNCLAIMED
    assert stops(round_) == [("n1", 1, None)]
    assert desk.step.avoid == ("n1",)


def test_routing_news_of_what_nobody_wants_changes_nothing() -> None:
    """Routers tell late, often after the answer; if the attempt is really unwanted, its claim is answered with a stop."""
    desk = opened()
    job, step = desk.job, desk.step
    desk.say(claimed(job, step), failed(job, step))
    desk.wait(60.0)
    for attempt in (1, 3):
        assert desk.say(routed(job, step, attempt=attempt, node="n9")).empty
    assert step.routed is None
    assert stops(desk.say(claimed(job, step, "late", attempt=1))) == [("n1", 1, "late")]
    desk.say(succeeded(job, step, claim=None))
    assert desk.say(routed(job, step)).empty


def test_routing_news_does_not_shorten_a_running_lease() -> None:
    """A second copy of the attempt may be routed while the first runs."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step))
    desk.say(routed(desk.job, desk.step, node="n2"))
    assert desk.step.leased_until == desk.now + 20.0


# Success


def test_a_success_without_claim_is_accepted() -> None:
    """The claim's record may be lost; history asked for the step."""
    desk = opened()
    assert published(desk.say(succeeded(desk.job, desk.step)))[0].answer.text == "a"


def test_success_of_an_older_attempt_counts_for_a_plain_step() -> None:
    """The first that history asked for and that succeeds; the running attempt is stopped."""
    desk = opened()
    job, step = desk.job, desk.step
    desk.say(claimed(job, step))
    desk.wait(20.1)
    desk.wait(60.0)
    desk.say(claimed(job, step, "c2", node="n2"))
    round_ = desk.say(succeeded(job, step, "first", claim="c1", attempt=1))
    assert published(round_)[0].answer.text == "first"
    assert stops(round_) == [("n2", 2, None)]
    assert desk.say(succeeded(job, step, "second", claim="c2", attempt=2)).events == {}


def test_success_of_an_older_attempt_of_a_stream_is_waste() -> None:
    """Once attempt n+1 is recorded the caller reads that one."""
    desk = opened(stream=True)
    job, step = desk.job, desk.step
    desk.say(claimed(job, step))
    desk.wait(20.1)
    assert kinds(desk.wait(60.0)) == ["step_retried"]
    assert kinds(desk.say(succeeded(job, step, "first", claim="c1", attempt=1))) == ["work_wasted"]
    assert published(desk.say(claimed(job, step, "c2"), succeeded(job, step, "second", claim="c2")))[0].answer.text == "second"


def test_a_losing_claim_of_a_stream_is_never_accepted() -> None:
    """The caller was shown the winner's text; neither while that runs nor after it failed is the loser's taken."""
    desk = opened(stream=True)
    job, step = desk.job, desk.step
    desk.say(claimed(job, step, "winner"), claimed(job, step, "loser", node="n2"))
    assert kinds(desk.say(succeeded(job, step, claim="loser"))) == ["work_wasted"]
    assert kinds(desk.say(failed(job, step, claim="winner"))) == ["attempt_failed"]
    assert desk.step.phase is Phase.WAITING
    assert kinds(desk.say(succeeded(job, step, claim="loser"))) == ["work_wasted"]
    assert job.settled is None


def test_a_losing_claim_of_a_plain_step_may_win_the_race() -> None:
    """Either answer is as good; the standing claim is stopped."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step, "stands"))
    round_ = desk.say(succeeded(desk.job, desk.step, claim="other"))
    assert stops(round_) == [("n1", 1, None)]
    assert len(published(round_)) == 1


def test_a_success_from_the_future_is_waste() -> None:
    """An attempt that history never began belongs to a fenced planner's history."""
    desk = opened()
    assert kinds(desk.say(succeeded(desk.job, desk.step, attempt=2))) == ["work_wasted"]


def test_outcomes_of_unknown_jobs_change_nothing() -> None:
    """They are counted, and that is all."""
    desk = opened()
    job, step = desk.job, desk.step
    desk.book.jobs.clear()
    assert desk.say(succeeded(job, step), failed(job, step), released(job, step), renewed("c1")).empty


def test_usage_is_summed_with_waste() -> None:
    """Calls and tokens of accepted attempts, and apart from them what was thrown away."""
    desk = Desk()
    desk.submit(**two_steps())
    job = desk.job
    desk.say(claimed(job, desk.step), failed(job, desk.step))
    desk.wait(60.0)
    desk.say(succeeded(job, desk.step, claim=None))
    desk.say(succeeded(job, desk.step, claim="c9", attempt=5))
    desk.say(succeeded(job, desk.step))
    assert job.settled is not None
    assert job.settled.result.usage == Usage(calls=2, prompt_tokens=20, completion_tokens=10, wasted_calls=2, wasted_tokens=30)
    assert desk.say(StepFailed(job=job.id, step="s", attempt=1, failure=Failure(kind=FailureKind.INTERNAL, message="x"))).empty


def test_waste_without_consumption_is_no_event() -> None:
    """History is not filled by empty news."""
    desk = opened()
    wasted = succeeded(desk.job, desk.step, attempt=2).model_copy(update={"usage": Usage()})
    assert desk.say(wasted).empty
    desk.say(succeeded(desk.job, desk.step, attempt=2))
    event = last(desk, WorkWasted)
    assert isinstance(event, WorkWasted)
    assert event.usage == ONE_CALL


# Ends


def test_the_deadline_expires_the_job_and_stops_its_step() -> None:
    """Whatever state the step is in."""
    desk = opened(deadline_at=1_700_000_010.0)
    desk.say(claimed(desk.job, desk.step))
    assert desk.wait(9.9).empty
    assert stops(desk.wait(0.2)) == [("n1", 1, None)]
    assert desk.book.claims == {}
    [result] = published(desk.wait(0.5))
    assert (result.status, result.failure.kind) == (Status.EXPIRED, FailureKind.DEADLINE)
    assert len(desk.book.timers) == 0


def test_the_wall_limit_ends_with_the_best_answer_so_far() -> None:
    """`finish_reason: budget`; without any answer, a typed failure."""
    desk = Desk()
    desk.submit(**two_steps(limits={"wall_seconds": 10}))
    desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step, "half"))
    desk.say(claimed(desk.job, desk.step, "c2"))
    assert stops(desk.wait(10.1)) == [("n1", 1, None)]
    [result] = published(desk.wait(0.6))
    assert (result.status, result.failure) == (Status.SUCCEEDED, None)
    assert (result.answer.text, result.answer.finish_reason) == ("half", FinishReason.BUDGET)
    desk.submit(**two_steps(limits={"wall_seconds": 10}))
    [result] = published(desk.wait(10.1))
    assert (result.status, result.failure.kind) == (Status.FAILED, FailureKind.LIMIT)


def test_a_cancel_ends_the_job_and_reaches_its_node() -> None:
    """The stop goes after the acknowledgement, to the claim's node, else to where the router put it."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step))
    step = desk.step
    round_ = desk.say(CancelRequested(job=desk.job.id, reason="enough"))
    assert stops(round_) == [("n1", 1, None)]
    assert published(round_) == []
    assert desk.say(CancelRequested(job=desk.job.id)).empty
    [result] = published(desk.say(failed(desk.job, step, FailureKind.CANCELLED)))
    assert (result.status, result.failure.message) == (Status.CANCELLED, "enough")
    assert desk.say(CancelRequested(job=desk.job.id)).empty
    desk.submit()
    desk.say(routed(desk.job, desk.step, node="n5"))
    assert stops(desk.say(CancelRequested(job=desk.job.id))) == [("n5", 1, None)]
    desk.submit()
    assert stops(desk.say(CancelRequested(job=desk.job.id))) == []


def test_a_timer_that_has_moved_changes_nothing() -> None:
    """A home fires what was due when it asked Kafka; the outcome may have come meanwhile."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step))
    desk.now += 19.0
    due = desk.round(lambda round_: attempts.on_due(round_, desk.job.id))
    assert due.empty
    assert desk.book.timers.next_due() == pytest.approx(desk.now + 1.0, abs=0.02)
    assert desk.round(lambda round_: attempts.on_due(round_, "unknown")).empty


def test_every_open_step_has_a_timer() -> None:
    """In each phase something is armed that moves the step on; a settled job has none."""
    desk = opened()
    job, step = desk.job, desk.step
    rounds: list[Round] = []
    for outcome in (routed(job, step), claimed(job, step), failed(job, step)):
        rounds.append(desk.say(outcome))
        assert not math.isinf(step.due_at)
        assert desk.book.timers.next_due() <= step.due_at + 0.02
    desk.wait(60.0)
    desk.say(succeeded(job, step))
    assert math.isinf(desk.book.timers.next_due())


@pytest.mark.parametrize("bytes_", [1, 200, *range(300, 3_000, 50)])
def test_an_end_gives_all_places_back(bytes_: int, caplog: pytest.LogCaptureFixture) -> None:
    """However large its history is with which event, and without a failure of its own when nobody else of the tenant is there."""
    desk = Desk(Policy(live_job_bytes=bytes_))
    desk.submit(**two_steps())
    job = desk.job
    for _ in range(2):
        desk.say(*answered(job, desk.step))
    assert job.settled is not None
    count = desk.book.live_count
    assert (count.jobs, count.waiting, set(count.of_class.values()), count.of_tenant) == (0, 0, {0}, {})
    assert "job_failed" not in {record.message for record in caplog.records}
