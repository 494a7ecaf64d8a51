"""Recovery: a replay of what was recorded is the state that recorded it, and drives on from there."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.book import Book
from services.planner.context import Context, StepError, StepRequest
from services.planner.live import LiveJob, Phase
from services.planner.patterns import BY_VERSION, CURRENT
from services.planner.patterns.port import Pattern
from services.planner.policy import Policy
from services.planner.round import Publish, Round
from shared.contracts.chat import Answer
from shared.contracts.event import EVENT, JobAccepted, PlannerStarted, StepAsked
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Status
from shared.retry import RetryPolicy
from tests.unit.planner.desk import (
    Desk,
    claimed,
    dispatched,
    failed,
    kinds,
    published,
    released,
    renewed,
    routed,
    sent_after,
    stops,
    succeeded,
    two_steps,
)

POLICY = Policy(retry=RetryPolicy(4, 0.5, 5.0), no_node_seconds=60.0)


async def mixed(ctx: Context, job: Job) -> Answer:
    """Everything a pattern may do: side by side, nested, a quorum, a sleep, a failure that is caught."""

    async def pair(name: str) -> str:
        first, second = await ctx.gather(ctx.ask(StepRequest(prompt=name + "1")), ctx.ask(StepRequest(prompt=name + "2", stream=True)))
        return str(first.text + second.text)

    try:
        found = await ctx.gather(pair("a"), pair("b"), ctx.ask(StepRequest(prompt="c")), quorum=2)
    except StepError as error:
        found = [error.failure.message]
    await ctx.sleep(3)
    ctx.best(Answer(text=str(found)))
    return await ctx.ask(StepRequest(prompt=str(found)))


@pytest.fixture(scope="module", autouse=True)
def mixed_pattern() -> Iterator[None]:
    """`mixed` is a pattern while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        pattern = Pattern("mixed", 1, mixed)
        patch.setitem(CURRENT, "mixed", pattern)
        patch.setitem(BY_VERSION, ("mixed", 1), pattern)
        yield


def state(book: Book) -> list[Any]:
    """All that history decides, of every job, in the order of first offsets."""
    return [
        (
            job.id,
            job.accepted,
            [(s.id, s.path, s.request, s.reserved_tokens, s.attempt, s.failures, s.phase, s.claim, s.avoid) for s in job.steps.values()],
            [(s.retry_after_seconds, s.wakes_at) for s in job.steps.values() if s.phase in (Phase.WAITING, Phase.SLEEPING)],
            (job.usage, job.steps_asked, job.attempts, job.reserved_tokens),
            job.settled,
            job.facts,
            job.run.wanted(),
            (job.run.context.best_answer, job.run.finished),
        )
        for job in book.jobs.values()
    ]


# A random life of a home

ACTIONS = ("submit", "claim", "succeed", "fail", "release", "renew", "route", "cancel", "wait", "snapshot", "again", "take_over")
SUBMISSIONS: tuple[dict[str, Any], ...] = (
    {"prompt": "q"},
    {"prompt": "q", "stream": True},
    {"prompt": "q", "pattern": "mixed"},
    {"prompt": "q", "pattern": "mixed", "limits": {"calls": 4}},
    two_steps(),
    two_steps(limits={"wall_seconds": 20}),
    {"prompt": "q", "pattern": "nonesuch"},
)
FAILURES = (FailureKind.MODEL_ERROR, FailureKind.CANCELLED, FailureKind.INVALID_OUTPUT, FailureKind.BAD_REQUEST)


def live_steps(desk: Desk) -> list[tuple[LiveJob, Any]]:
    return [(job, step) for job in desk.book.jobs.values() for step in job.steps.values() if step.request is not None]


def act(desk: Desk, action: str, draw: Random) -> None:
    """One thing that may happen to a home; nothing when it does not apply."""
    steps = live_steps(desk)
    if action == "submit":
        desk.submit(id_=f"own{draw.randrange(4)}" if draw.random() < 0.3 else None, **draw.choice(SUBMISSIONS))
    elif action == "wait":
        desk.wait(draw.choice((0.1, 3.0, 8.0, 25.0)))
    elif action == "cancel":
        desk.say(CancelRequested(job=draw.choice([*desk.book.jobs, f"own{draw.randrange(4)}", "unknown"])))
    elif action == "snapshot":
        for job in [job for job in desk.book.jobs.values() if job.settled is None][:1]:
            desk.snapshot(job)
    elif action == "take_over":
        desk.take_over()
    elif action == "renew":
        desk.say(renewed(*list(desk.book.claims)[:3], "foreign"))
    elif steps:
        _of_step(desk, action, draw, *draw.choice(steps))


def _of_step(desk: Desk, action: str, draw: Random, job: LiveJob, step: Any) -> None:
    standing = step.claim.id if step.claim is not None else None
    claim = draw.choice((standing, standing, f"c{draw.randrange(5)}"))
    attempt = max(1, step.attempt - (draw.random() < 0.2))
    node, fresh = f"n{draw.randrange(3)}", f"c{draw.getrandbits(64)}"
    match action:
        case "claim":
            desk.say(claimed(job, step, fresh, attempt=attempt, node=node))
        case "succeed":
            desk.say(succeeded(job, step, f"text {draw.randrange(100)}", claim=claim, attempt=attempt, node=node))
        case "fail":
            desk.say(failed(job, step, draw.choice(FAILURES), claim=claim, attempt=attempt, node=node))
        case "release":
            desk.say(released(job, step, claim=claim, attempt=attempt))
        case "route":
            desk.say(routed(job, step, attempt=attempt, node=node))
        case "again":
            outcome = succeeded(job, step, claim=standing)
            desk.say(claimed(job, step, fresh), outcome, outcome)


def lived(actions: list[str], seed: int) -> Desk:
    desk, draw = Desk(POLICY, seed), Random(seed)
    desk.submit(prompt="q", pattern="mixed")
    for action in actions:
        act(desk, action, draw)
    return desk


lives = st.lists(st.sampled_from(ACTIONS), max_size=40)


@given(lives, st.integers(0, 10_000))
def test_a_replay_is_the_state_that_was_recorded(actions: list[str], seed: int) -> None:
    """Jobs, steps, attempts, claims, usage, pattern: all as they were; and driving on adds nothing to a complete history."""
    desk = lived(actions, seed)
    replay, book, round_ = desk.replayed()
    assert state(book) == state(desk.book)
    assert [job.first_offset for job in book.jobs.values()] == [job.first_offset for job in desk.book.jobs.values()]
    assert (book.live, set(book.cancels)) == (desk.book.live, set(desk.book.cancels))
    replay.finish()
    assert round_.events == {}
    assert book.claims == desk.book.claims
    for name in ("own0", "own1", "own2", "own3"):
        assert book.settled_ids.find(name, desk.now) == desk.book.settled_ids.find(name, desk.now)


@given(lives, st.integers(0, 10_000), st.floats(0, 1))
def test_any_part_of_a_history_can_be_driven_on(actions: list[str], seed: int, part: float) -> None:
    """A batch may be cut anywhere by a crash: what is missing is appended, and then a replay of it all adds nothing more."""
    desk = lived(actions, seed)
    desk.history = desk.history[: 1 + round(part * (len(desk.history) - 1))]
    desk.take_over()
    again, same, round_ = desk.replayed()
    assert state(same) == state(desk.book)
    again.finish()
    assert round_.events == {}
    for job in desk.book.jobs.values():
        assert job.settled is not None or (job.id in desk.book.timers._bucket_of and not job.run.finished)


@given(lives, st.integers(0, 10_000), st.lists(st.floats(0, 1), max_size=5))
def test_records_of_fenced_planners_are_passed_over(actions: list[str], seed: int, places: list[float]) -> None:
    """Whatever a stale writer says, and wherever it lies. (Without take-overs: stale records would move the later epochs.)"""
    desk = lived([action for action in actions if action != "take_over"], seed)
    stale = EVENT.validate_json(desk.history[1][1]).model_copy(update={"epoch": 77})
    values = [value for _, value in desk.history]
    for place in places:
        values.insert(1 + round(place * (len(values) - 1)), stale.to_bytes())
        values.insert(1 + round(place * (len(values) - 1)), stale.model_copy(update={"job": "ghost"}).to_bytes())
    _, book, _ = desk.replayed(list(enumerate(values)))
    assert state(book) == state(desk.book)


# Validity


def test_an_event_counts_only_under_the_planner_that_is_in_force() -> None:
    """After the next PlannerStarted the first one's late records are nothing."""
    desk = Desk()
    desk.submit()
    late = desk.history[1][1]
    takes_over = PlannerStarted(nonce="m", planner="q").to_bytes()
    ghost = EVENT.validate_json(late).model_copy(update={"job": "ghost"}).to_bytes()
    new = EVENT.validate_json(late).model_copy(update={"job": "new", "epoch": 3}).to_bytes()
    values = [*(value for _, value in desk.history), takes_over, ghost, new]
    _, book, _ = desk.replayed(list(enumerate(values)))
    assert list(book.jobs) == [desk.job.id, "new"]


def test_the_first_record_read_names_the_epoch_in_force() -> None:
    """The watermark always names a valid record; reading begins there, behind the PlannerStarted."""
    desk = Desk()
    desk.submit()
    first = desk.job.first_offset
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
    assert job.steps[step.id].due_at == desk.now + book.policy.no_node_seconds


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
    assert step.due_at == desk.now + 20.0
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
        desk.say(succeeded(job, step, claim=None))
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
    assert book.settled_ids.find("mine", desk.now) is not None


def test_stops_that_may_be_lost_are_sent_again() -> None:
    """A cancelled job's running step, and a branch that a quorum abandoned: their claims are in history (law 9)."""
    desk = Desk(POLICY)
    desk.submit()
    desk.say(claimed(desk.job, desk.step, "single"))
    desk.say(CancelRequested(job=desk.job.id))
    desk.submit(prompt="q", pattern="mixed")
    (job, a1), (_, a2), (_, b1), (_, _), (_, c) = live_steps(desk)
    desk.say(claimed(job, b1, "branch", node="n2"))
    for step in (a1, a2, c):
        desk.say(succeeded(job, step, claim=None))
    round_, _ = finished(desk)
    assert stops(round_) == [("n1", 1, None), ("n2", 1, None)]


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
    desk.history.pop()
    round_, book = finished(desk)
    assert kinds(round_) == ["job_settled"]
    assert book.live == 0


def test_remembered_cancels_survive() -> None:
    """With their offset, which holds the watermark, and a full period."""
    desk = Desk()
    desk.say(CancelRequested(job="later"))
    desk.take_over()
    assert desk.book.cancels == {"later": (1, desk.now + desk.policy.cancel_memory_seconds)}
    desk.submit(id_="later")
    assert desk.types()[-1] == "job_settled"
    desk.take_over()
    assert desk.book.cancels == {}


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
    asked = EVENT.validate_json(values[2])
    assert isinstance(asked, StepAsked)
    values[2] = asked.model_copy(update={"step": "f" * 32}).to_bytes()
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
