"""Waiting for a node: being busy is not being impossible. What routers tell, what callers see, what a failure asks of the next node."""

from __future__ import annotations

from services.planner.round import Round
from services.planner.state.policy import Policy
from shared.contracts.base import PriorityClass
from shared.contracts.event import EVENT, StepWaits
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepUnplaced
from shared.contracts.result import Status
from tests.unit.planner.desk import Desk, claimed, dispatched, failed, opened, published, routed, sent_after


def waits(round_: Round) -> list[tuple[str, ...]]:
    """What was recorded as missing in this round."""
    found = [EVENT.validate_json(value) for events in round_.events.values() for _, value in events]
    return [event.missing for event in found if isinstance(event, StepWaits)]


def test_a_step_of_which_no_router_says_anything_is_sent_again_and_never_fails_for_it() -> None:
    """Its record may be gone; or the cluster is busy for longer than any limit. The same attempt, as often as it takes."""
    desk = opened(Policy(resend_seconds=600.0, deadline_seconds=dict.fromkeys(PriorityClass, 100_000.0)))
    for _ in range(3):
        [step] = dispatched(desk.wait(600.1))
        assert (step.id, step.attempt) == (desk.step.id, 1)
    assert desk.job.settled is None
    desk.say(routed(desk.job, desk.step))
    assert desk.step.due_at == desk.now + desk.policy.claim_timeout_seconds


def unplaced(desk: Desk, *missing: str) -> StepUnplaced:
    return StepUnplaced(job=desk.job.id, step=desk.step.id, attempt=desk.step.attempt, missing=missing)


def test_what_a_step_waits_for_is_an_event_at_once_and_is_told_again_only_when_it_changes() -> None:
    """A bounded number of times; it travels with the step, and ends with its claim."""
    desk = opened()
    assert waits(desk.say(unplaced(desk, "model x"))) == [("model x",)]
    assert desk.say(unplaced(desk, "model x")).empty
    assert waits(desk.say(unplaced(desk))) == [()]
    for n in range(100):
        desk.say(unplaced(desk, f"model {n}"))
    assert desk.step.told_missing < 50
    desk.say(claimed(desk.job, desk.step))
    assert desk.step.missing == ()
    assert desk.say(unplaced(desk, "too late")).empty


def test_a_deadline_says_what_the_job_waited_for() -> None:
    """Ten minutes of silence, and then only that time has passed, helps nobody."""
    desk = opened(deadline_seconds=10.0)
    desk.say(unplaced(desk, "model x for chat"))
    [result] = published(desk.wait(10.1))
    assert (result.status, result.failure.kind, result.failure.missing) == (Status.EXPIRED, FailureKind.DEADLINE, ("model x for chat",))
    assert "model x for chat" in result.failure.message


def test_how_long_an_endpoint_wants_to_be_left_alone_holds_up_its_node_not_the_job() -> None:
    """Whatever kind of failure tells it: the next attempt goes elsewhere after its own backoff."""
    for kind in (FailureKind.OVERLOADED, FailureKind.MODEL_ERROR, FailureKind.MODEL_TIMEOUT):
        desk = opened()
        outcome = failed(desk.job, desk.step, kind, claim=None)
        desk.say(outcome.model_copy(update={"failure": outcome.failure.model_copy(update={"retry_after_seconds": 86_400.0})}))
        again = sent_after(desk.wait(desk.policy.retry.cap_seconds + 1))
        assert [(step.attempt, step.avoid) for step in again] == [(2, ("n1",))]


def test_what_did_not_fit_a_window_asks_for_a_larger_one() -> None:
    """The largest that it did not fit, also after other failures, and for a successor."""
    desk = opened()
    for window in (8_192, 4_096):
        outcome = failed(desk.job, desk.step, FailureKind.CONTEXT_LENGTH, claim=None)
        desk.say(outcome.model_copy(update={"failure": outcome.failure.model_copy(update={"window": window})}))
        [again] = sent_after(desk.wait(desk.policy.retry.cap_seconds + 1))
        assert again.beyond_window == 8_192
    desk.take_over()
    assert desk.step.beyond_window == 8_192
