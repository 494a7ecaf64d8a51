"""A second attempt beside one that takes longer than nearly all before it: when, how often, and what becomes of who is not first."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest

from services.planner.deciding.admission import accept
from services.planner.deciding.hedging import SLOW
from services.planner.draft import Disown, Given, StopAnywhere
from services.planner.job.open_step import Phase
from services.planner.state.durations import MOST_KEPT, Durations, Hedging
from services.planner.state.policy import Policy
from shared.contracts.agents import RatedModel
from shared.contracts.base import PriorityClass
from shared.contracts.budget import TenantLimits
from shared.contracts.event import AttemptFailed
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import ClaimsRenewed
from shared.contracts.step import Step, StepRequest
from tests.unit.planner.desk import ONE_CALL, Desk, claimed, failed, job_input, kinds, last, published, sent_after, stops, succeeded

USUAL, SLOW_AFTER = 1.0, 1.3


class Nodes:
    """Another node has room, or none has."""

    def __init__(self) -> None:
        self.room = True
        self.avoided: tuple[str, ...] = ()

    def give(self, step: Step) -> Given | None:
        return None

    def models(self) -> dict[str, RatedModel]:
        return {}

    def digest(self, model: str) -> str | None:
        return None

    def room_elsewhere(self, step: Step) -> bool:
        self.avoided = step.avoid
        return self.room


def desk(tenants: dict[str, TenantLimits] | None = None, **policy: Any) -> tuple[Desk, Nodes]:
    """One that knows how long its calls take, and may hedge."""
    made, nodes = Desk(Policy(**({"hedge_share": 1.0, "hedge_samples": 20} | policy)), tenants=tenants), Nodes()
    made.book.mailboxes = nodes
    for _ in range(20):
        made.book.hedging.learn(StepRequest(), USUAL)
    return made, nodes


def ask(made: Desk, klass: PriorityClass = PriorityClass.INTERACTIVE, **job: Any) -> None:
    """A job whose step is claimed on n1."""
    given = replace(job_input({"prompt": "q", **job}, made.inputs), priority_class=klass)
    made.inputs += 1
    made.round(lambda round_: accept(round_, given, None))
    made.say(claimed(made.job, made.step))


def test_the_quantile_is_at_most_a_bucket_too_large() -> None:
    random, durations = Random(1), Durations()
    assert Durations().quantile(0.5) in (0.0, 0.01)
    seen = sorted(random.lognormvariate(0.0, 1.0) for _ in range(1_900))
    for seconds in seen:
        durations.add(seconds)
    for share in (0.5, 0.9, 0.99):
        exact = seen[int(share * len(seen)) - 1]
        assert exact <= durations.quantile(share) * 1.001
        assert durations.quantile(share) <= exact * 2**0.25 * 1.02
    for _ in range(20_000):
        durations.add(100.0)
    assert durations.quantile(0.1) == pytest.approx(100.0, rel=0.2)
    for odd in (0.0, -1.0, 1e12):
        durations.add(odd)
    assert durations.quantile(1.0) < inf


def test_hedges_are_a_share_and_what_is_known_is_bounded() -> None:
    """Whatever is slow: of a hundred steps five at most, and never many at once."""
    hedging = Hedging(0.05, 1, 0.1)
    assert hedging.after_seconds(StepRequest()) == inf
    hedging.learn(StepRequest(), 2.0)
    begun = sum(hedging.after_seconds(StepRequest()) < inf and hedging.take() for _ in range(1_000))
    assert 45 <= begun <= 51
    for _ in range(10_000):
        hedging.after_seconds(StepRequest())
    assert sum(hedging.take() for _ in range(100)) == 5
    for number in range(2 * MOST_KEPT):
        hedging.learn(StepRequest(model=f"m{number}"), 1.0)
    assert len(hedging._known) == MOST_KEPT


def test_a_slow_attempt_goes_on_beside_the_next() -> None:
    """Uncounted, elsewhere, without a stop; its renewals are known."""
    made, nodes = desk()
    ask(made)
    made.wait(USUAL - 0.1)
    assert made.step.attempt == 1
    begun = made.wait(SLOW_AFTER)
    given_up = last(made, AttemptFailed)
    assert isinstance(given_up, AttemptFailed)
    assert (given_up.failure.message, given_up.counted, given_up.failure.node) == (SLOW, False, "n1")
    assert nodes.avoided == ("n1",)
    assert [(step.attempt, step.avoid) for step in sent_after(begun)] == [(2, ("n1",))]
    assert not stops(begun)
    heard = made.say(ClaimsRenewed(node="n1", claims=("c1",), mailbox=1))
    assert not any(isinstance(effect, Disown) for effect in heard.after)
    assert made.step.failures == 0


def test_the_second_is_first() -> None:
    """The former is told to stop, by its claim; what it has used is waste."""
    made, _ = desk()
    ask(made, pattern="chain", chain=[{"name": "a", "template": "{input}"}, {"name": "b", "template": "{a}"}])
    step = made.step
    made.wait(USUAL + SLOW_AFTER)
    made.say(claimed(made.job, step, "c2", node="n2"))
    told = made.say(succeeded(made.job, step, claim="c2", attempt=2, node="n2"))
    assert stops(told) == [("n1", 1, "c1")]
    wasted = made.say(failed(made.job, step, FailureKind.CANCELLED, claim="c1", attempt=1))
    assert kinds(wasted) == ["work_wasted"]
    assert made.job.usage.wasted_calls == ONE_CALL.calls


@pytest.mark.parametrize("took", [True, False])
def test_the_former_is_first_after_all(took: bool) -> None:
    """Its answer counts; the second is stopped where it runs, or anywhere before it does."""
    made, _ = desk()
    ask(made)
    step = made.step
    made.wait(USUAL + SLOW_AFTER)
    if took:
        made.say(claimed(made.job, step, "c2", node="n2"))
    told = made.say(succeeded(made.job, step, claim="c1", attempt=1))
    assert [result.answer.text for result in published(told)] == ["a"]
    assert [stop[0] for stop in stops(told)] == (["n2"] if took else [])
    assert any(isinstance(effect, StopAnywhere) for effect in told.after) is not took


def test_a_failure_beside_changes_nothing() -> None:
    """The attempt that stands goes on; and when that fails the former may still answer."""
    made, _ = desk()
    ask(made)
    step = made.step
    made.wait(USUAL + SLOW_AFTER)
    made.say(claimed(made.job, step, "c2", node="n2"))
    made.say(failed(made.job, step, claim="c1", attempt=1))
    assert (made.step.phase, made.step.attempt) == (Phase.CLAIMED, 2)
    other, _ = desk()
    ask(other)
    step = other.step
    other.wait(USUAL + SLOW_AFTER)
    other.say(claimed(other.job, step, "c2", node="n2"))
    other.say(failed(other.job, step, claim="c2", attempt=2, node="n2"))
    assert published(other.say(succeeded(other.job, step, claim="c1", attempt=1)))


def test_once_a_step() -> None:
    made, _ = desk()
    ask(made)
    step = made.step
    made.wait(USUAL + SLOW_AFTER)
    made.say(claimed(made.job, step, "c2", node="n2"))
    for _ in range(5):
        made.wait(USUAL + SLOW_AFTER)
        made.say(ClaimsRenewed(node="n2", claims=("c2",)))
    assert made.step.attempt == 2


def test_room_that_comes_later_is_taken() -> None:
    made, nodes = desk()
    nodes.room = False
    ask(made)
    made.wait(USUAL + SLOW_AFTER)
    assert made.step.attempt == 1
    nodes.room = True
    made.wait(1.1)
    assert made.step.attempt == 2


@pytest.mark.parametrize(
    ("klass", "job", "policy", "tenants"),
    [
        (PriorityClass.STANDARD, {}, {}, {}),
        (PriorityClass.INTERACTIVE, {"stream": True}, {}, {}),
        (PriorityClass.INTERACTIVE, {"limits": {"calls": 1}}, {}, {}),
        (PriorityClass.INTERACTIVE, {"limits": {"tokens": 100_000}}, {}, {}),
        (PriorityClass.INTERACTIVE, {}, {"hedge_share": 0.0}, {}),
        (PriorityClass.INTERACTIVE, {}, {"hedge_samples": 21}, {}),
        (PriorityClass.INTERACTIVE, {"tenant": "few"}, {}, {"few": TenantLimits(calls=100)}),
    ],
)
def test_where_none_is_begun(klass: PriorityClass, job: dict[str, Any], policy: dict[str, Any], tenants: dict[str, TenantLimits]) -> None:
    """Other classes, streams, limits that count what it would use, and where it is not known what is slow."""
    made, _ = desk(tenants, **policy)
    if tenants:
        made.book.funds.tenants = {}  # its budget is another test's: here only that it has one
    ask(made, klass, **job)
    made.book.funds.tenants = tenants
    made.wait(USUAL + SLOW_AFTER)
    assert made.step.attempt == 1


def test_a_successor_does_not_know_the_former() -> None:
    """Its next renewal is answered with a stop; the second attempt stands, and either's answer counts."""
    made, _ = desk()
    ask(made)
    made.wait(USUAL + SLOW_AFTER)
    made.say(claimed(made.job, made.step, "c2", node="n2"))
    made.take_over()
    told = made.say(ClaimsRenewed(node="n1", claims=("c1",), mailbox=1))
    assert any(isinstance(effect, Disown) for effect in told.after)
    assert published(made.say(succeeded(made.job, made.step, claim="c1", attempt=1)))
