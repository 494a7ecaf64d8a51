"""A step that must not be done twice: it is asked again only where nobody can have begun it, and else fails typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.planner.state.policy import Policy
from shared.contracts.agents import Tool
from shared.contracts.event import AttemptFailed
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import WorkerStarted
from tests.unit.planner.desk import Desk, claimed, failed, last, published, released, routed

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


MAY_HAVE_BEGUN = [starts_again, is_silent, is_not_claimed, *map(fails, (K.MODEL_TIMEOUT, K.BROKEN_STREAM, K.INTERNAL, K.CANCELLED))]


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
