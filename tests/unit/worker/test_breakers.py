"""Breakers: a node, or a model of it, whose calls fail is left alone, probed after a growing while, and tried with one step."""

from __future__ import annotations

from itertools import count
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.breakers import (
    CLEARED_SECONDS,
    COUNTED,
    MOST_CLEARED,
    MOST_MODELS,
    MOST_STRUCK,
    NODE,
    BreakerPolicy,
    Breakers,
    BreakerState,
    Called,
)
from shared.contracts.failure import FailureKind as K

SLOW = 5.0
_STEPS = count()


class Desk:
    """A node's breakers with a clock; each call is a step and a claim of its own unless named."""

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self.breakers, self.now = Breakers(policy or BreakerPolicy()), 100.0

    def fail(self, model: str = "m", kind: K = K.MODEL_ERROR, *, step: str = "", seconds: float = SLOW, tokens: int = 0) -> None:
        claim = f"c{next(_STEPS)}"
        self.breakers.begin(claim, model)
        self.breakers.failed(claim, model, kind, Called(step or f"s{next(_STEPS)}", seconds, tokens), self.now)

    def succeed(self, model: str = "m", *, seconds: float = SLOW) -> None:
        claim = f"c{next(_STEPS)}"
        self.breakers.begin(claim, model)
        self.breakers.succeeded(claim, model, Called(f"s{next(_STEPS)}", seconds, 1), self.now)

    def state(self, model: str = "m") -> BreakerState:
        return self.breakers.node.state if model == NODE else self.breakers._of(model).state

    def rest(self, model: str = "m") -> None:
        """Until it is half-open."""
        self.probe(True, model=model)
        self.probe(True, model=model)
        assert self.state(model) is BreakerState.HALF_OPEN

    def probe(self, works: bool, *, called: bool = False, model: str = "m") -> float:
        """Wait for the back-off, and probe; returns how long it was."""
        waited = self.breakers.due_in(self.now)
        self.now += waited
        assert model in self.breakers.due(self.now)
        self.breakers.probed(model, works, self.now, called=called)
        return waited


@pytest.mark.parametrize("kind", sorted(COUNTED - {K.NODE_UNREACHABLE}))
def test_three_failures_in_a_row_open_a_model(kind: K) -> None:
    """The other models of the node go on."""
    desk = Desk()
    for _ in range(2):
        desk.fail(kind=kind)
        assert desk.breakers.admits("m")
    desk.fail(kind=kind)
    assert desk.breakers.shut == {"m"}
    assert not desk.breakers.admits("m")
    assert desk.breakers.admits("other")
    assert desk.breakers.places(4) == 4


def test_two_that_fail_suspiciously_fast_open_it() -> None:
    """Fast beside what a success takes, and without a token; a stream that breaks late is no such."""
    fast = Desk()
    fast.succeed(seconds=20.0)
    fast.fail(seconds=1.0)
    fast.fail(seconds=1.0)
    assert fast.breakers.shut == {"m"}
    late = Desk()
    late.succeed(seconds=20.0)
    late.fail(seconds=1.0, tokens=3)
    late.fail(seconds=1.0, tokens=3)
    assert not late.breakers.shut


def test_a_success_halves_what_speaks_against_it() -> None:
    """Every other call fails, and yet it answers: only more failures than successes open."""
    desk = Desk()
    for _ in range(50):
        desk.fail()
        desk.succeed()
    assert not desk.breakers.shut


def test_a_step_counts_once_however_often_it_is_tried() -> None:
    """A request that breaks every endpoint is the request's fault."""
    desk = Desk()
    for _ in range(20):
        desk.fail(step="poison")
    assert not desk.breakers.shut


def test_requests_that_fail_everywhere_stop_nobody() -> None:
    """A call of the worker's own works: it is open for that moment, and the next time for twice as many failures. Where the probe fails, or
    long after, three are enough again."""
    desk = Desk()
    needed = []
    for _ in range(MOST_CLEARED + 2):
        number = 0
        while not desk.breakers.shut:
            desk.fail()
            number += 1
        needed.append(number)
        desk.probe(True, called=True)
        assert desk.state() is BreakerState.CLOSED
        desk.succeed()
    assert needed == [3, 6, 12, 24, 48, 48]
    desk.now += CLEARED_SECONDS
    for _ in range(3):
        desk.fail()
    assert desk.breakers.shut == {"m"}
    desk.probe(False, called=True)
    assert desk.state() is BreakerState.OPEN


def test_the_back_off_grows_and_is_bounded() -> None:
    """Whether the probe fails or the step behind it. Each opening is looked at at once; a model that could be called then is closed."""
    desk = Desk(BreakerPolicy(first_seconds=1.0, longest_seconds=8.0))
    for _ in range(3):
        desk.fail()
    waits = []
    for turn in range(8):
        early = desk.breakers.due_in(desk.now)
        if early == 0.0:
            desk.probe(bool(turn % 3))
            assert desk.state() is BreakerState.OPEN
        waits.append(desk.probe(bool(turn % 2)))
        if turn % 2:
            assert desk.state() is BreakerState.HALF_OPEN
            desk.fail()
            assert desk.breakers.due_in(desk.now) == 0.0
        assert desk.state() is BreakerState.OPEN
    assert waits == pytest.approx([1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0])
    desk.probe(True, called=True)
    assert desk.state() is BreakerState.CLOSED


def test_a_breaker_that_opens_again_goes_on_where_it_was() -> None:
    """Until as many steps have succeeded: a model that answers probes and nobody else is left alone for longer and longer."""
    desk = Desk()
    rests = []
    for _ in range(4):
        while not desk.breakers.shut:
            desk.fail()
        rests.append(desk.breakers._of("m")._rests_until - desk.now)
        desk.probe(True, called=True)
    assert rests == [1.0, 2.0, 4.0, 8.0]
    for _ in range(4):
        desk.succeed()
    while not desk.breakers.shut:
        desk.fail()
    assert desk.breakers._of("m")._rests_until - desk.now == 1.0


def test_one_step_is_let_through_and_closes_it() -> None:
    """While it runs nothing else is; what began before it opened says nothing; one that ends undecided makes room for the next."""
    desk = Desk()
    for _ in range(3):
        desk.fail()
    desk.rest()
    breakers = desk.breakers
    assert breakers.admits("m")
    breakers.begin("first", "m")
    assert breakers.shut == {"m"}
    assert breakers.admits("m", "first")
    assert not breakers.admits("m", "second")
    breakers.succeeded("before", "m", Called("x", 1.0, 1), desk.now)
    breakers.failed("before too", "m", K.MODEL_ERROR, Called("y"), desk.now)
    assert breakers.shut == {"m"}
    breakers.over("first")
    assert desk.state() is BreakerState.HALF_OPEN
    breakers.begin("second", "m")
    breakers.succeeded("second", "m", Called("z", 1.0, 1), desk.now)
    assert desk.state() is BreakerState.CLOSED
    assert not breakers.shut


def test_nobody_there_is_the_node() -> None:
    """Whatever the models: it offers nothing, then one place, and is whole again after the step that has used it."""
    desk = Desk()
    for model in ("a", "b", "c"):
        desk.fail(model, K.NODE_UNREACHABLE)
    assert desk.breakers.shut == {NODE}
    assert desk.breakers.places(4) == 0
    assert not desk.breakers.admits("a")
    desk.rest(NODE)
    assert desk.breakers.places(4) == 1
    desk.breakers.begin("trial", "a")
    assert desk.breakers.places(4) == 0
    desk.breakers.succeeded("trial", "a", Called("x", 1.0, 1), desk.now)
    assert desk.breakers.places(4) == 4


def test_two_models_that_open_in_a_row_are_the_node() -> None:
    """One that answers between them shows that it is not."""
    desk = Desk()
    for model in ("a", "b"):
        for _ in range(3):
            desk.fail(model)
    assert desk.breakers.shut == {NODE, "a", "b"}
    other = Desk()
    for model in ("a", "b"):
        for _ in range(3):
            other.fail(model)
        other.succeed("c")
    assert other.breakers.shut == {"a", "b"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("fail", "succeed", "unreachable", "begin", "over", "works", "fails", "wait")),
            st.integers(0, 3),
            st.floats(0.0, 100.0),
        ),
        max_size=120,
    )
)
def test_whatever_comes_it_stays_whole(moves: list[tuple[str, int, float]]) -> None:
    """At most one trial each; who is shut has a way back within the longest back-off; memory is bounded; no place is made up."""
    desk, claims = Desk(), list[tuple[str, str]]()
    breakers = desk.breakers
    for move, number, seconds in moves:
        model = f"m{number}"
        match move:
            case "fail":
                desk.fail(model, seconds=seconds)
            case "unreachable":
                desk.fail(model, K.NODE_UNREACHABLE)
            case "succeed":
                desk.succeed(model, seconds=seconds)
            case "begin":
                if breakers.admits(model):
                    claims.append((f"k{next(_STEPS)}", model))
                    breakers.begin(*claims[-1])
            case "over":
                if claims:
                    breakers.over(claims.pop(number % len(claims))[0])
            case "wait":
                desk.now += seconds
            case _:
                for name in breakers.due(desk.now):
                    breakers.probed(name, move == "works", desk.now, called=bool(number % 2))
        assert breakers.places(3) <= 3
        for name, breaker in {NODE: breakers.node, **breakers._models}.items():
            assert (breaker.state is BreakerState.CLOSED) == (name not in breakers.not_closed)
            assert breaker.opened >= 0
            assert breaker.strikes < desk.breakers._policy.failures * 2**MOST_CLEARED
            if breaker.state is BreakerState.OPEN:
                assert breaker.until - desk.now <= desk.breakers._policy.longest_seconds
            assert breaker.trial is None or name in breakers._trials[breaker.trial]
    for claim, _ in claims:
        breakers.over(claim)
    assert not breakers._trials
    desk.now += 1_000.0
    for name in breakers.due(desk.now):
        breakers.probed(name, True, desk.now, called=True)
    assert breakers.due_in(desk.now) == inf


def test_what_is_remembered_is_bounded() -> None:
    """Models come and go, tenants too; one that is open is not forgotten for others that are not."""
    desk = Desk()
    for _ in range(3):
        desk.fail("first")
    for number in range(2 * MOST_MODELS):
        desk.succeed(f"m{number}")
    assert len(desk.breakers._models) <= MOST_MODELS
    assert desk.breakers.shut == {"first"}
    for _ in range(2 * MOST_STRUCK):
        desk.breakers._of("m").failed(Called(f"s{next(_STEPS)}"), desk.now)
        desk.breakers._of("m").strikes = 0.0
    assert len(desk.breakers._of("m")._struck) == MOST_STRUCK
