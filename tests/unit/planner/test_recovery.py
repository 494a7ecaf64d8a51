"""Recovery: a replay of what was recorded is the state that recorded it, and drives on from there."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.draft import Publish
from services.planner.job.open_step import Phase
from services.planner.round import Round
from services.planner.state.book import Book
from services.planner.state.policy import Policy
from shared.contracts.budget import Amounts, BudgetGranted, TenantLimits
from shared.contracts.event import EVENT, JobAccepted, PlannerStarted, facts_of
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Status
from shared.scheduling.retry import RetryPolicy
from tests.unit.planner.desk import (
    Desk,
    answered,
    claimed,
    dispatched,
    failed,
    kinds,
    published,
    released,
    routed,
    sent_after,
    stops,
    succeeded,
    two_steps,
)
from tests.unit.planner.lives import POLICY, live_steps, mixed_pattern, state

__all__ = ["mixed_pattern"]
DAY = 1_700_000_000 // 86_400


# Validity


def test_an_event_counts_only_under_the_planner_that_is_in_force() -> None:
    """After the next PlannerStarted the first one's late records are nothing."""
    desk = Desk()
    desk.submit()
    late = desk.history[1][1]
    takes_over = PlannerStarted(nonce="m", planner="q").to_bytes()
    ghost = EVENT.validate_json(late).model_copy(update={"job": "ghost"}).to_bytes()
    new = EVENT.validate_json(late).model_copy(update={"job": "new", "epoch": 2, "asks": ()}).to_bytes()
    values = [*(value for _, value in desk.history), takes_over, ghost, new]
    _, book, _ = desk.replayed(list(enumerate(values)))
    assert list(book.jobs) == [desk.job.id, "new"]


def test_the_first_record_read_names_the_epoch_in_force() -> None:
    """The watermark always names a valid record; reading begins there, behind the PlannerStarted."""
    desk = Desk()
    desk.submit()
    first = desk.begins()
    _, book, _ = desk.replayed(desk.history[first:])
    assert state(book) == state(desk.book)


def test_what_cannot_be_read_is_passed_over() -> None:
    """It is no event of any planner; recovery of the others goes on."""
    desk = Desk()
    desk.submit()
    values = [value for _, value in desk.history]
    for noise in (b"", b"not json", b'{"type": "job_settled"}', b'{"type": "unheard_of", "epoch": 0}'):
        values.insert(2, noise)
    _, book, _ = desk.replayed(list(enumerate(values)))
    assert state(book) == state(desk.book)


# Driving on


def finished(desk: Desk, history: list[tuple[int, bytes]] | None = None) -> tuple[Round, Book]:
    """A finished replay of a history that is not the desk's own: the round it decided, and its book."""
    replay, book, round_ = desk.replayed(history)
    replay.finish()
    return round_, book


def test_asked_but_unclaimed_steps_are_sent_again_with_the_same_attempt() -> None:
    """The dispatch may have been lost; a second copy is claimed only once."""
    desk = Desk()
    desk.submit()
    desk.say(released(desk.job, desk.step))
    desk.say(routed(desk.job, desk.step))
    desk.now += 3
    round_, book = finished(desk)
    [step] = dispatched(round_)
    assert (step.id, step.attempt) == (desk.step.id, 2)
    [job] = book.jobs.values()
    assert job.steps[step.id].due_at == desk.now + book.policy.resend_seconds


def test_claimed_steps_are_not_sent_again() -> None:
    """Their lease runs anew, in full; its renewals count."""
    desk = Desk()
    desk.submit()
    desk.say(claimed(desk.job, desk.step))
    desk.now += 19
    round_, book = finished(desk)
    assert round_.empty
    [job] = book.jobs.values()
    [step] = job.steps.values()
    assert step.leased_until == desk.now + 20.0
    assert book.claims == {"c1": (job.id, step.id)}


def test_waiting_steps_wait_their_full_backoff_again() -> None:
    """Relative times begin anew: two machines' clocks are not compared."""
    desk = Desk(Policy(retry=RetryPolicy(3, 8.0, 8.0)), seed=3)
    desk.submit()
    desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step))
    wait = desk.step.retry_after_seconds
    desk.now += wait / 2
    round_, book = finished(desk)
    assert round_.empty
    [job] = book.jobs.values()
    [step] = job.steps.values()
    assert step.due_at == desk.now + wait


def test_sleeps_and_deadlines_are_absolute() -> None:
    """A sleep goes on to the instant that was recorded, and is over if that is past."""
    desk = Desk(POLICY)
    desk.submit(prompt="q", pattern="mixed", deadline_at=desk.wall + 100)
    for job, step in live_steps(desk):
        desk.say(*answered(job, step))
    assert desk.step.phase is Phase.SLEEPING
    desk.wall += 2
    _, book = finished(desk)
    [job] = book.jobs.values()
    [step] = job.steps.values()
    assert step.due_at == pytest.approx(desk.now + 1.0)
    assert job.deadline_due == pytest.approx(desk.now + 98.0)
    desk.wall += 50
    _, book = finished(desk)
    [job] = book.jobs.values()
    assert next(iter(job.steps.values())).due_at == desk.now


@pytest.mark.parametrize("skew", [-180.0, 180.0])
def test_a_planner_whose_clock_is_minutes_off_gives_nobody_a_shorter_or_longer_time(skew: float) -> None:
    """Default deadlines, given durations, wall time and sleeps are counted on by the log's arrival times; a user's instant is one."""
    desk = Desk(POLICY)
    given: tuple[dict[str, Any], ...] = (
        {},
        {"deadline_seconds": 120.0},
        {"limits": {"wall_seconds": 120}},
        {"deadline_at": desk.wall + 200},
    )
    for changes in given:
        desk.submit(prompt="q", pattern="mixed", **changes)
    before = [(job.deadline_due, job.wall_due, job.soft_wall_due) for job in desk.book.jobs.values()]
    for job, step in live_steps(desk):
        desk.say(*answered(job, step))
    desk.wall += 2
    desk.now += 2
    desk.snapshot(desk.job)
    desk.skew = skew
    desk.take_over()
    desk.wait(1.02)
    after = [(job.deadline_due, job.wall_due, job.soft_wall_due) for job in desk.book.jobs.values()]
    slept = [(3.02, 0.0, 0.0), (0.0, 0.0, 0.0), (3.02, 3.02, 3.02)]  # does not count where nobody named an end
    expected = [tuple(map(sum, zip(due, more, strict=True))) for due, more in zip(before, slept, strict=False)]
    assert after[:3] == [pytest.approx(due) for due in expected]
    assert after[3][0] == pytest.approx(before[3][0] - skew)
    assert {step.phase for _, step in live_steps(desk)} == {Phase.ASKED}, "the sleeps were over in time"


@pytest.mark.parametrize("skew", [-10_000.0, 10_000.0])
def test_an_id_is_remembered_for_an_hour_whatever_a_planners_clock_says(skew: float) -> None:
    """From when its settle event arrived in the log, by the brokers' clock."""
    desk = Desk()
    desk.submit(id_="mine", prompt="q")
    desk.say(succeeded(desk.job, desk.step, claim=None))
    ended = desk.now
    desk.wall += 3_000
    desk.now += 3_000
    desk.skew = skew
    desk.take_over()
    assert [at for _, (_, at) in desk.book.recent_ids.between(0)] == [pytest.approx(ended)]
    assert desk.book.recent_ids.find("mine", ended + 3_599) is not None
    assert desk.book.recent_ids.find("mine", ended + 3_601) is None


def test_the_age_of_a_job_survives_its_snapshot() -> None:
    """The snapshot lies much later in the log than the acceptance; it says how old the job was."""
    desk = Desk()
    desk.submit(prompt="q", deadline_seconds=100.0)
    due = desk.job.deadline_due
    desk.wait(60.0)
    desk.snapshot(desk.job)
    desk.wait(10.0)
    replay, book, _ = desk.replayed(desk.history[desk.begins() :])
    replay.finish()
    [job] = book.jobs.values()
    assert job.deadline_due == pytest.approx(due)


def test_a_deadline_long_past_expires_on_a_machine_that_has_just_started() -> None:
    """Its monotonic clock may be younger than the time that the deadline is past."""
    desk = Desk()
    desk.submit(prompt="q", deadline_at=desk.wall + 10)
    desk.now, desk.wall = 5.0, desk.wall + 3_600
    desk.take_over()
    assert published(desk.wait(0.0))[0].status is Status.EXPIRED


def test_settled_jobs_are_published_again_byte_for_byte() -> None:
    """The acknowledgement may have been lost with the planner."""
    desk = Desk()
    desk.submit(id_="mine")
    first = desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step))
    round_, _ = finished(desk)
    assert round_.events == {}
    [before], [again] = published(first), published(round_)
    assert again.to_bytes() == before.to_bytes()


def test_a_settle_event_whose_job_lies_before_the_watermark_is_published_too() -> None:
    """It is self-contained; and its id is remembered."""
    desk = Desk()
    desk.submit(id_="mine")
    desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step))
    round_, book = finished(desk, desk.history[-1:])
    assert [result.job for result in published(round_)] == ["mine"]
    assert book.jobs == {}
    assert book.recent_ids.find("mine", desk.now) is not None


def test_stops_that_may_be_lost_are_sent_again() -> None:
    """A cancelled job's running step, and a branch that a quorum abandoned: their claims are in history (law 9)."""
    desk = Desk(POLICY)
    desk.submit()
    desk.say(claimed(desk.job, desk.step, "single"))
    desk.say(CancelRequested(job=desk.job.id))
    desk.wait(1.0)  # its worker says nothing
    desk.submit(prompt="q", pattern="mixed")
    (job, a1), (_, a2), (_, b1), (_, _), (_, c) = live_steps(desk)
    desk.say(claimed(job, b1, "branch", node="n2"))
    for step in (a1, a2, c):
        desk.say(*answered(job, step))
    round_, _ = finished(desk)
    assert stops(round_) == [("n1", 1, None), ("n2", 1, None)]


def test_the_claim_of_a_branch_that_a_quorum_abandons_in_the_same_round_is_known_to_the_successor() -> None:
    """Claim and quorum in one round: the stop may die with the planner, before and after the end of the job (law 9)."""
    desk = Desk(POLICY)
    desk.submit(prompt="q", pattern="mixed")
    (job, a1), (_, a2), (_, b1), (_, _), (_, c) = live_steps(desk)
    desk.say(*answered(job, a1), *answered(job, a2))
    round_ = desk.say(claimed(job, b1, "branch", node="n2"), succeeded(job, c, claim=None))
    assert stops(round_) == [("n2", 1, None)]
    assert stops(finished(desk)[0]) == [("n2", 1, None)]
    for step in live_steps(desk):
        desk.say(*answered(*step))
    desk.wait(3.0)
    desk.say(succeeded(desk.job, desk.step, claim=None))
    assert desk.job.settled is not None
    assert stops(finished(desk)[0]) == [("n2", 1, None)], "the end of its job does not make it forgotten"


def test_an_abandoned_branch_takes_of_the_budget_once() -> None:
    """What it reserves is reserved until it says what it used, and is counted once by every planner that replays it."""
    desk = Desk(POLICY, tenants={"default": TenantLimits(calls=100)})
    desk.submit(prompt="q", pattern="mixed")
    desk.say(BudgetGranted(tenant="default", day=DAY, serial=1, total=Amounts(calls=50)))
    (job, a1), (_, a2), (_, b1), (_, _), (_, c) = live_steps(desk)
    desk.say(*(claimed(job, step, f"c{number}") for number, step in enumerate((a1, a2, b1, c))))
    desk.say(*(succeeded(job, step, claim=f"c{number}") for number, step in ((0, a1), (1, a2), (3, c))))
    desk.submit(prompt="other", pattern="mixed")
    purse = desk.book.funds.shares.get("default", DAY)
    assert purse is not None
    before = (purse.used, purse.reserved)
    assert (before[0].calls, before[1].calls) == (3, 6)
    desk.take_over()
    again = desk.book.funds.shares.get("default", DAY)
    assert again is not None
    assert (again.used, again.reserved) == before


def test_a_missing_ask_is_appended() -> None:
    """The answer is recorded, the step that follows from it is not: the pattern, run again, asks for the same."""
    desk = Desk()
    desk.submit(**two_steps())
    round_ = desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step))
    [second] = dispatched(round_)
    desk.history.pop()
    round_, _ = finished(desk)
    assert kinds(round_) == ["step_asked"]
    assert [step.id for step in dispatched(round_)] == [second.id]


def test_a_missing_end_is_appended() -> None:
    """The last answer is recorded, the settle event is not."""
    desk = Desk()
    desk.submit()
    desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step))
    answered, _ = facts_of(EVENT.validate_json(desk.history.pop()[1]))
    desk.history.append((len(desk.history), answered.to_bytes()))
    round_, book = finished(desk)
    assert kinds(round_) == ["job_settled"]
    assert book.live == 0


def test_remembered_cancels_survive() -> None:
    """With their offset, which holds the watermark."""
    desk = Desk()
    desk.say(CancelRequested(job="later"))
    desk.take_over()
    assert (list(desk.book.cancels), desk.book.kept.lowest) == (["later"], 1)
    desk.submit(id_="later")
    assert desk.types()[-1] == "job_settled"
    desk.take_over()
    assert list(desk.book.cancels) == []


def test_an_id_that_was_accepted_anew_is_the_newer_job() -> None:
    """Its first life left the window of remembered ids; the watermark still lay before it."""
    desk = Desk(Policy(settled_memory_seconds=60.0))
    desk.submit(id_="mine")
    desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step))
    desk.book.jobs.clear()
    desk.wait(100.0)
    desk.submit(id_="mine")
    round_, book = finished(desk)
    assert book.jobs["mine"].settled is None
    assert book.live == 1
    assert [step.job for step in dispatched(round_)] == ["mine"]


# Broken histories


def test_a_history_that_the_pattern_does_not_repeat_fails_its_job_alone() -> None:
    """A typed failure; what it had claimed is stopped; the next job goes on."""
    desk = Desk()
    desk.submit()
    desk.submit()
    values = [value for _, value in desk.history]
    accepted = EVENT.validate_json(values[1])
    assert isinstance(accepted, JobAccepted)
    [ask] = accepted.asks
    values[1] = accepted.model_copy(update={"asks": (ask.model_copy(update={"step": "f" * 32}),)}).to_bytes()
    round_, book = finished(desk, list(enumerate(values)))
    broken, whole = book.jobs.values()
    assert broken.settled is not None
    assert broken.settled.result.status is Status.FAILED
    assert broken.settled.result.failure is not None
    assert broken.settled.result.failure.kind is FailureKind.NON_DETERMINISTIC_PATTERN
    assert [step.job for step in dispatched(round_)] == [whole.id]
    assert sum(isinstance(effect, Publish) for effect in round_.after) == 1


def test_a_pattern_version_that_is_gone_fails_its_job() -> None:
    """Nothing is guessed: another version may ask for other steps."""
    desk = Desk()
    desk.submit()
    values = [value for _, value in desk.history]
    accepted = EVENT.validate_json(values[1])
    assert isinstance(accepted, JobAccepted)
    values[1] = accepted.model_copy(update={"pattern_version": 99}).to_bytes()
    round_, _ = finished(desk, list(enumerate(values)))
    [result] = published(round_)
    assert result.failure.kind is FailureKind.NON_DETERMINISTIC_PATTERN


def test_retries_that_recovery_begins_wait_for_their_event() -> None:
    """A backoff that is over by the deadline of its timer is retried after the take-over's append, not beside it."""
    desk = Desk()
    desk.submit()
    desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step))
    desk.take_over()
    round_ = desk.wait(60.0)
    assert dispatched(round_) == []
    assert len(sent_after(round_)) == 1
