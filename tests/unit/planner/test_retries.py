"""Attempts: failures, retries and releases of a step."""

from __future__ import annotations

from random import Random

import pytest

from services.planner.job.open_step import Phase
from services.planner.state.policy import Policy
from shared.contracts.event import AttemptFailed
from shared.contracts.failure import FailureKind
from shared.contracts.result import Status
from shared.contracts.usage import Usage
from shared.scheduling.retry import RetryPolicy
from tests.unit.planner.desk import claimed, dispatched, failed, kinds, last, opened, published, released, sent_after, succeeded

# Failures and retries


def test_a_failed_attempt_is_tried_again_elsewhere_after_a_recorded_wait() -> None:
    """The wait is in the event, the timer is armed, the retry goes out only after its event, avoiding the node."""
    desk = opened(Policy(retry=RetryPolicy(3, 2.0, 30.0)))
    desk.book.random = Random(1)
    wait = 2.0 * Random(1).random()
    round_ = desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step))
    event = last(desk, AttemptFailed)
    assert isinstance(event, AttemptFailed)
    assert event.retry_after_seconds == pytest.approx(wait)
    assert desk.step.phase is Phase.WAITING
    assert sent_after(round_) == dispatched(round_) == []
    assert desk.book.timers.next_due() == pytest.approx(desk.now + wait, abs=0.02)
    assert desk.wait(wait - 0.02).empty
    round_ = desk.wait(0.05)
    assert kinds(round_) == ["step_retried"]
    assert dispatched(round_) == []
    [again] = sent_after(round_)
    assert (again.attempt, again.avoid, again.id) == (2, ("n1",), desk.step.id)


def test_attempts_are_limited() -> None:
    """After the last one the job fails with that failure."""
    desk = opened(Policy(retry=RetryPolicy(3, 0.5, 1.0)))
    for number in (1, 2):
        desk.say(claimed(desk.job, desk.step, f"c{number}"), failed(desk.job, desk.step, claim=f"c{number}"))
        desk.wait(2.0)
    [result] = published(desk.say(claimed(desk.job, desk.step, "c3"), failed(desk.job, desk.step, claim="c3")))
    assert (result.status, result.failure.kind, result.attempts) == (Status.FAILED, FailureKind.MODEL_ERROR, 3)
    assert result.usage == Usage(wasted_calls=3, wasted_tokens=45)


def test_a_job_may_limit_its_attempts() -> None:
    """Below the planner's number, or above it."""
    desk = opened(limits={"attempts": 1})
    assert len(published(desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step)))) == 1


@pytest.mark.parametrize("kind", [FailureKind.BAD_REQUEST, FailureKind.UNSUPPORTED, FailureKind.TOO_LARGE, FailureKind.NO_NODE])
def test_what_cannot_get_better_is_not_retried(kind: FailureKind) -> None:
    """The first failure is the job's."""
    desk = opened()
    [result] = published(desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step, kind)))
    assert result.failure.kind is kind


def test_a_failure_that_may_happen_anywhere_avoids_no_node() -> None:
    """Invalid output is the model's chance, not the node's fault."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step, FailureKind.INVALID_OUTPUT))
    assert desk.step.avoid == ()


def test_a_failure_without_node_is_blamed_on_the_claims() -> None:
    """The planner knows who had it."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step, node="n7"), failed(desk.job, desk.step, node=None))
    assert desk.step.avoid == ("n7",)


def test_avoided_nodes_are_bounded() -> None:
    """The latest count."""
    desk = opened(Policy(retry=RetryPolicy(20, 0.1, 0.1)))
    for number in range(12):
        node = f"n{number}"
        desk.say(claimed(desk.job, desk.step, f"c{number}", node=node), failed(desk.job, desk.step, claim=f"c{number}", node=node))
        desk.wait(1.0)
    assert desk.step.avoid == tuple(f"n{number}" for number in range(4, 12))


def test_a_failure_of_another_claim_or_attempt_is_waste() -> None:
    """It ends nothing; what it consumed is counted."""
    desk = opened()
    job, step = desk.job, desk.step
    desk.say(claimed(job, step, "stands"))
    assert kinds(desk.say(failed(job, step, claim="other"))) == ["work_wasted"]
    assert kinds(desk.say(failed(job, step, claim="stands", attempt=7))) == ["work_wasted"]
    assert desk.step.phase is Phase.CLAIMED
    assert job.usage.wasted_calls == 2


@pytest.mark.parametrize("kind", [FailureKind.NO_NODE, FailureKind.CANCELLED])
def test_news_of_an_unclaimed_copy_does_not_end_the_claimed_one(kind: FailureKind) -> None:
    """After a take-over an attempt may travel twice; one copy runs, the other one's fate is nobody's concern."""
    desk = opened()
    job, step = desk.job, desk.step
    desk.say(claimed(job, step))
    assert desk.say(failed(job, step, kind, claim=None, usage=Usage())).empty
    assert desk.say(released(job, step, claim=None)).empty
    assert (desk.step.phase, desk.step.attempt) == (Phase.CLAIMED, 1)
    assert published(desk.say(succeeded(job, step)))[0].status is Status.SUCCEEDED


# Given back


def test_a_released_step_goes_out_again_at_once_and_uncounted() -> None:
    """A worker that drains does not use up the job's attempts."""
    desk = opened(Policy(retry=RetryPolicy(1, 0.5, 30.0)))
    round_ = desk.say(released(desk.job, desk.step))
    assert kinds(round_) == ["attempt_failed", "step_retried"]
    assert [step.attempt for step in sent_after(round_)] == [2]
    assert desk.step.failures == 0
    assert kinds(desk.say(claimed(desk.job, desk.step), released(desk.job, desk.step, claim="c1"))) == ["attempt_failed", "step_retried"]
    assert desk.book.claims == {}


@pytest.mark.parametrize("confused", [released, lambda job, step: failed(job, step, FailureKind.CANCELLED, claim=None)])
def test_a_node_that_gives_back_for_ever_cannot_spin(confused: object) -> None:
    """After two at once, the next ones are spaced out by the retry policy; still uncounted."""
    desk = opened(Policy(retry=RetryPolicy(1, 0.5, 30.0)))
    assert callable(confused)
    for _ in range(2):
        assert kinds(desk.say(confused(desk.job, desk.step)))[-1] == "step_retried"
    waits = []
    for _ in range(12):
        assert "step_retried" not in kinds(desk.say(confused(desk.job, desk.step)))
        waits.append(desk.step.retry_after_seconds)
        desk.wait(31.0)
    assert max(waits) > 5.0
    assert desk.step.attempt == 15
    assert desk.step.failures == 0


def test_a_step_that_was_cancelled_though_nobody_here_wants_it_is_asked_again() -> None:
    """An earlier owner's stop may reach a worker late; the attempt is repeated, uncounted, its cost kept as waste."""
    desk = opened(Policy(retry=RetryPolicy(1, 0.5, 1.0)))
    round_ = desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step, FailureKind.CANCELLED))
    assert [step.attempt for step in sent_after(round_)] == [2]
    assert desk.job.usage.wasted_calls == 1
    assert desk.step.avoid == ()


def test_a_second_copys_release_is_ignored() -> None:
    """Of another claim, or an older attempt."""
    desk = opened()
    desk.say(claimed(desk.job, desk.step, "stands"))
    assert desk.say(released(desk.job, desk.step, claim="other")).empty
    assert desk.say(released(desk.job, desk.step, claim="stands", attempt=9)).empty
