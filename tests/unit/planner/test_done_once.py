"""A step that must not be done twice: it is asked again only where nobody can have begun it, and else fails typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.planner.draft import Begin
from services.planner.round import Round
from services.planner.state.policy import Policy
from shared.contracts.agents import Tool
from shared.contracts.event import AttemptFailed
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import WorkerStarted
from tests.unit.planner.desk import Desk, claimed, dispatched, failed, last, published, released, routed, stops

K = FailureKind


def calling(*, idempotent: bool) -> Desk:
    """A desk with a job that calls one tool."""
    desk = Desk(Policy(capabilities=("chat", "tools")))
    table = desk.policy.declared
    for key, value in table.to_declare("tool", "send", Tool(idempotent=idempotent), at=0.0, by="").items():
        table.on_entry("tool", key, value)
    desk.submit(prompt="{}", pattern="tools", input={"tool": "send"})
    return desk


def starts_again(desk: Desk) -> None:
    desk.say(claimed(desk.job, desk.step, "n1.i1.1"))
    desk.say(WorkerStarted(node="n1", incarnation=2))


def is_silent(desk: Desk) -> None:
    desk.say(claimed(desk.job, desk.step))
    desk.wait(60.0)


def is_not_claimed(desk: Desk) -> None:
    desk.say(routed(desk.job, desk.step))
    desk.wait(6.0)


def fails(kind: FailureKind) -> Callable[[Desk], None]:
    return lambda desk: (desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step, kind)), None)[1]


MAY_HAVE_BEGUN = [starts_again, is_silent, *map(fails, (K.MODEL_TIMEOUT, K.BROKEN_STREAM, K.INTERNAL, K.CANCELLED))]


@pytest.mark.parametrize("happens", MAY_HAVE_BEGUN)
def test_what_may_have_begun_is_done_once(happens: Callable[[Desk], Any]) -> None:
    """A tool that may be called twice is asked again; the other's job ends, and says why."""
    for idempotent in (True, False):
        desk = calling(idempotent=idempotent)
        step = desk.step.id
        happens(desk)
        event = last(desk, AttemptFailed)
        assert isinstance(event, AttemptFailed)
        assert (event.retry_after_seconds is not None) == idempotent
        assert (desk.job.settled is None) == idempotent
        if not idempotent:
            assert event.step == step
            assert desk.job.settled is not None
            words = desk.job.settled.result.failure.message
            assert "must not be done twice" in words or event.failure.kind is K.CANCELLED


@pytest.mark.parametrize("kind", [K.NODE_UNREACHABLE, K.OVERLOADED, K.UNKNOWN_MODEL])
def test_what_nobody_has_begun_is_asked_again(kind: FailureKind) -> None:
    desk = calling(idempotent=False)
    desk.say(claimed(desk.job, desk.step), failed(desk.job, desk.step, kind))
    assert desk.job.settled is None
    desk.wait(30.0)
    assert desk.step.attempt == 2


def test_what_is_given_back_is_asked_again() -> None:
    """Its worker has not begun."""
    desk = calling(idempotent=False)
    round_ = desk.say(released(desk.job, desk.step))
    assert (published(round_), desk.step.attempt) == ([], 2)


def test_what_nobody_has_claimed_is_asked_again() -> None:
    """Whoever claims the earlier attempt later is not let begin."""
    desk = calling(idempotent=False)
    is_not_claimed(desk)
    desk.wait(30.0)
    assert desk.step.attempt == 2
    round_ = desk.say(claimed(desk.job, desk.step, "late", attempt=1))
    assert (begun(round_), len(stops(round_))) == ([], 1)


def begun(round_: Round) -> list[str]:
    """Claims that may begin once the round is acknowledged."""
    return [effect.control.claim for effect in round_.after if isinstance(effect, Begin)]


def test_the_claim_that_stands_in_history_may_begin() -> None:
    """No other; and only of a step that must not be done twice."""
    desk = calling(idempotent=False)
    round_ = desk.say(claimed(desk.job, desk.step, "one"), claimed(desk.job, desk.step, "two", node="n2"))
    assert begun(round_) == ["one"]
    assert desk.types()[-1] == "step_claimed"
    assert [claim for _, _, claim in stops(round_)] == ["two"]
    assert begun(calling(idempotent=True).say(claimed(desk.job, desk.step))) == []


def test_a_successor_lets_begin_what_history_holds() -> None:
    """The word may have died with the planner before it. A claim that did not get there is claimed anew, by whoever is first."""
    desk = calling(idempotent=False)
    desk.say(claimed(desk.job, desk.step, "one"))
    assert begun(desk.take_over()) == ["one"]
    desk = calling(idempotent=False)
    round_ = desk.take_over()
    assert (begun(round_), len(dispatched(round_))) == ([], 1)
    assert begun(desk.say(claimed(desk.job, desk.step, "two"))) == ["two"]
