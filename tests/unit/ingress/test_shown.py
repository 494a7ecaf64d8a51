"""What callers see of history: derived from the contract's events, complete, and told as history has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest

from services.ingress.dialects.tutti import requests as dialect
from services.ingress.status.shown import ALL, FIELDS, NOT_SHOWN, SHOWN, RawEvent, kind_of, shown
from services.ingress.status.status import JobState, JobStatus, fold
from shared.contracts import event as events
from shared.contracts.base import Contract, PriorityClass
from shared.contracts.conversation import TurnBegun
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Result, Status

OF: dict[str, Any] = {"epoch": 0, "job": "j", "at": 100.0}
FAILURE = Failure(kind=FailureKind.MODEL_ERROR, message="500")


def missing(model: type[Contract], fields: Mapping[str, Any], place: str = "") -> list[str]:
    """Fields that are shown and that the model lacks."""
    found = []
    for name, inner in fields.items():
        if name not in model.model_fields:
            found.append(place + name)
        elif inner is not True:
            annotation = model.model_fields[name].annotation
            nested = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, Contract)]
            found += missing(nested[0], inner, f"{place}{name}.")
    return found


@pytest.mark.parametrize("event", FIELDS, ids=kind_of)
def test_every_field_that_is_shown_is_a_field_of_the_event(event: type[Contract]) -> None:
    """A name that the contract has not would be shown by nobody, and missed by nobody."""
    assert missing(event, FIELDS[event]) == []


def test_every_event_is_shown_or_said_not_to_be() -> None:
    """Whoever adds an event decides it."""
    assert sorted(map(kind_of, (*FIELDS, *NOT_SHOWN))) == sorted(map(kind_of, ALL))
    assert set(SHOWN) == {kind_of(event) for event in FIELDS} | {"job_snapshot"}


def log(*facts: Contract) -> list[RawEvent]:
    return [RawEvent(offset, kind_of(type(fact)), fact.to_bytes()) for offset, fact in enumerate(facts)]


def accepted() -> events.JobAccepted:
    return events.JobAccepted(
        **OF,
        request=Job(prompt="p", tenant="t"),
        priority_class=PriorityClass.BATCH,
        home=0,
        source="jobs.batch/0/0",
        source_offset=0,
        pattern_version=1,
        limits=Limits(tokens=1_000),
        deadline_at=200.0,
        digest="d",
    )


ASKED = events.StepAsked(**OF, step="s", path="0", agent="chat", model="m")


def status_of(*facts: Contract) -> JobStatus:
    return fold("j", 0, None, log(*facts))


def test_a_step_that_is_tried_again_tells_when() -> None:
    """Retrying, until the next attempt has begun; without another attempt: failed."""
    failed = events.AttemptFailed(**OF, step="s", attempt=1, failure=FAILURE, retry_after_seconds=12.0)
    [step] = status_of(ASKED, failed).steps
    assert (step.state, step.retry_at) == ("retrying", 112.0)
    [step] = status_of(ASKED, failed, events.StepRetried(**OF, step="s", attempt=2)).steps
    assert (step.state, step.retry_at, step.attempt) == ("asked", None, 2)
    [step] = status_of(ASKED, events.AttemptFailed(**OF, step="s", attempt=1, failure=FAILURE)).steps
    assert (step.state, step.retry_at) == ("failed", None)
    assert shown(failed)["retry_after_seconds"] == 12.0


def test_a_step_without_budget_waits_for_it() -> None:
    """The first attempt, and a later one."""
    funded = events.StepFunded(**OF, step="s", attempt=1, charged_day=3)
    asked = ASKED.model_copy(update={"unfunded": True})
    assert [status_of(*facts).steps[0].state for facts in ((asked,), (asked, funded))] == ["unfunded", "asked"]
    again = events.StepRetried(**OF, step="s", attempt=2, unfunded=True)
    assert status_of(ASKED, again).steps[0].state == "unfunded"


def test_a_pause_tells_its_end() -> None:
    """Of a pattern that sleeps."""
    sleeping = events.TimerSet(**OF, step="t", path="1", due_at=150.0)
    [pause] = status_of(sleeping).steps
    assert (pause.state, pause.due_at, pause.path) == ("sleeping", 150.0, "1")
    assert status_of(sleeping, events.TimerFired(**OF, step="t")).steps[0].state == "over"


def test_the_conversation_is_told_before_its_turn_comes() -> None:
    """A job that waits has no steps: what it waits for must be seen."""
    waits = accepted().model_copy(update={"request": Job(prompt="p", tenant="t", conversation="dinner")})
    status = status_of(waits)
    assert (status.state, status.conversation) == ("accepted", "dinner")
    assert b'"conversation":"dinner"' in status.public()
    assert status_of(waits, TurnBegun(**OF, turn=7)).state == "running"


def test_limits_and_what_has_neared_them() -> None:
    """The bounds that hold, whoever set them, and the alerts."""
    status = status_of(accepted(), events.LimitNeared(**OF, limit="tokens", used=800, bound=1_000))
    assert status.limits == Limits(tokens=1_000)
    assert [(near.limit, near.used, near.bound) for near in status.limits_neared] == [("tokens", 800, 1_000)]


def test_a_job_that_is_being_stopped_says_why() -> None:
    """Until it has ended: then its result says it."""
    stopped = events.JobStopped(**OF, failure=Failure(kind=FailureKind.DEADLINE, message="too late"))
    status = status_of(accepted(), stopped)
    assert status.stopping is not None
    assert status.stopping.kind is FailureKind.DEADLINE
    result = Result(job="j", tenant="t", status=Status.EXPIRED, accepted_at=100.0, finished_at=101.0)
    ended = status_of(accepted(), stopped, events.JobSettled(**OF, result=result, digest="d"))
    assert (ended.state, ended.stopping) == (JobState.SETTLED, None)


def test_an_end_tells_whose_it_was() -> None:
    """Where only the end of a job is seen: tenant, request, class and instants are in it."""
    result = Result(job="j", tenant="t", status=Status.CANCELLED, priority_class=PriorityClass.BATCH, accepted_at=90.0, finished_at=99.0)
    status = status_of(events.JobSettled(**OF, result=result, digest="d"))
    assert (status.tenant, status.digest, status.priority_class, status.accepted_at) == ("t", "d", PriorityClass.BATCH, 90.0)
    assert status_of(events.JobSettled(**OF, result=result)).digest is None, "of what another version wrote it is not known"


def test_a_snapshot_of_several_parts_is_told_whole() -> None:
    """To a reader that begins in the middle of the job: nothing twice, nothing left out."""
    claimed = events.StepClaimedBy(**OF, step="s", attempt=1, claim="c", node="n", mailbox=0, lease_seconds=20)
    texts = [fact.to_bytes().decode() for fact in (accepted(), ASKED, claimed)]
    parts = [events.JobSnapshot(**OF, snapshot="x", part=n, parts=3, facts=(text,)) for n, text in enumerate(texts)]
    status = status_of(claimed, *parts)
    assert [(step.id, step.nodes) for step in status.steps] == [("s", ["n"])]
    assert status.tenant == "t"
    assert status_of(accepted(), ASKED, claimed, *parts).steps == status.steps


@pytest.mark.parametrize("kind", sorted(SHOWN))
@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b"\xff", b'{"epoch": 0, "job": "j", "at": "soon"}'])
def test_an_event_that_cannot_be_read_hides_nothing_else(kind: str, value: bytes) -> None:
    """It is stepped over, in the status and in the event stream."""
    odd = RawEvent(1, kind, value)
    status = fold("j", 0, None, [*log(accepted()), odd, RawEvent(2, ASKED.type, ASKED.to_bytes())])
    assert (status.state, status.tenant, [step.id for step in status.steps]) == (JobState.RUNNING, "t", ["s"])
    assert dialect.events(odd, "j") == []


def test_nodes_and_failures_of_a_step_are_bounded() -> None:
    """Attempts that do not count are not bounded in number."""
    failed = [
        events.AttemptFailed(**OF, step="s", attempt=n, failure=FAILURE, retry_after_seconds=1.0, counted=False) for n in range(1, 500)
    ]
    [step] = status_of(ASKED, *failed).steps
    assert (len(step.failures), step.attempt) == (100, 499)
