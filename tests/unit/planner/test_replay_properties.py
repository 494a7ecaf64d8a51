"""Recovery, by random lives of a home: a replay of what was recorded is the state that recorded it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from services.planner.job.live import LiveJob
from shared.contracts.event import EVENT, Event, JobSnapshot, facts_of
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import CancelRequested
from tests.unit.planner.desk import Desk, claimed, failed, released, renewed, routed, succeeded, two_steps
from tests.unit.planner.lives import POLICY, live_steps, mixed_pattern, state

__all__ = ["mixed_pattern"]


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
@example(["succeed", "succeed", "fail", "claim", "claim", "fail", "cancel"], 124)  # it only waits, and ends while a stopped attempt runs
def test_a_replay_is_the_state_that_was_recorded(actions: list[str], seed: int) -> None:
    """Jobs, steps, attempts, claims, usage, pattern: all as they were; and driving on adds nothing to a complete history."""
    desk = lived(actions, seed)
    replay, book, round_ = desk.replayed()
    assert state(book) == state(desk.book)
    assert book.kept.lowest == desk.book.kept.lowest
    assert [book.kept_jobs.offset(job) for job in book.jobs] == [desk.book.kept_jobs.offset(job) for job in desk.book.jobs]
    assert set(book.cancels) == set(desk.book.cancels)
    replay.finish()
    assert (book.live, book.live_count.waiting) == (desk.book.live, desk.book.live_count.waiting), "who only waits has no place"
    assert round_.events == {}
    assert book.claims == desk.book.claims
    for name in ("own0", "own1", "own2", "own3"):
        assert book.recent_ids.find(name, desk.now) == desk.book.recent_ids.find(name, desk.now)


@given(lives, st.integers(0, 10_000))
def test_facts_apart_are_the_same_history(actions: list[str], seed: int) -> None:
    """As planners wrote them before asks rode in JobAccepted, and last answers in JobSettled: the same but for the events.
    (Without take-overs: with more records the later epochs would lie elsewhere.)
    """
    desk = lived([action for action in actions if action != "take_over"], seed)
    facts = [fact.to_bytes() for _, value in desk.history for fact in _facts(value)]
    _, book, round_ = desk.replayed(list(enumerate(facts)))
    for job in book.jobs.values():
        size = len(job.facts)
        job.facts = desk.book.jobs[job.id].facts
        assert size >= len(job.facts)
    assert state(book) == state(desk.book)
    assert round_.events == {}


def _facts(value: bytes) -> Iterator[Event]:
    event = EVENT.validate_json(value)
    if isinstance(event, JobSnapshot):
        facts = [part for fact in event.facts for part in facts_of(EVENT.validate_json(fact.encode()))]
        event = event.model_copy(update={"facts": tuple(fact.to_bytes().decode() for fact in facts)})
    yield from facts_of(event)


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
        waits = job.ending is not None or not job.run.finished  # one that is to end waits for what its stopped attempts have used
        assert job.settled is not None or (job.id in desk.book.timers._bucket_of and waits)


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
