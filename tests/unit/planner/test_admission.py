"""Admission: a job record becomes a job once, and whoever asks again is answered."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.deciding import admission, attempts
from services.planner.draft import CallerAnswer, Publish
from services.planner.round import Round
from services.planner.sending.messages import of_effect
from services.planner.state.cancels import KEPT_SECONDS
from services.planner.state.policy import Policy
from shared.contracts.base import PriorityClass
from shared.contracts.event import EVENT, JobAccepted
from shared.contracts.failure import FailureKind
from shared.contracts.job import ReplyTo
from shared.contracts.limits import Limits
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Result, Status
from shared.topics import Topics
from tests.unit.planner.desk import Desk, claimed, dispatched, job_input, kinds, published, succeeded, two_steps

HERE, THERE = ReplyTo(topic="replies", partition=1, correlation=b"1"), ReplyTo(topic="replies", partition=2, correlation=b"2")


def answers(round_: Round) -> list[tuple[ReplyTo, Result]]:
    """Callers that are told something without a new result."""
    return [(effect.reply, effect.result) for effect in round_.after if isinstance(effect, CallerAnswer)]


def finish(desk: Desk) -> Round:
    """The only step of the newest job succeeds."""
    return desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step))


def test_accepting_appends_and_dispatches() -> None:
    """JobAccepted and the first StepAsked are one append; the step goes out beside it, nothing waits for the acknowledgement."""
    desk = Desk()
    round_ = desk.submit()
    assert kinds(round_) == ["job_accepted", "step_asked"]
    [step] = dispatched(round_)
    assert (step.job, step.id, step.attempt, step.home) == (desk.job.id, desk.step.id, 1, 0)
    assert round_.after == []
    assert desk.begins() == 1
    assert desk.book.live == 1


def test_what_a_job_depends_on_is_pinned() -> None:
    """Version, limits with the planner's defaults, absolute deadline, where to answer."""
    desk = Desk(Policy(limits=Limits(calls=7, steps=9, width=3), deadline_seconds=dict.fromkeys(PriorityClass, 50.0)))
    desk.submit(reply=HERE, prompt="q", limits={"calls": 2})
    accepted = EVENT.validate_json(desk.history[1][1])
    assert isinstance(accepted, JobAccepted)
    assert accepted.limits == Limits(calls=2, steps=9, width=3)
    assert accepted.deadline_at == desk.wall + 50.0
    assert (accepted.pattern_version, accepted.reply, accepted.source) == (1, HERE, "jobs.standard/0/0")


def test_the_users_own_deadline_wins() -> None:
    """Over the class's."""
    desk = Desk()
    desk.submit(prompt="q", deadline_at=desk.wall + 3)
    assert desk.job.accepted.deadline_at == desk.wall + 3


@pytest.mark.parametrize(("reply", "letter"), [(None, True), (HERE, True), (HERE.model_copy(update={"multiplex": True}), False)])
def test_another_body_becomes_a_dead_letter_unless_an_ingress_tells_it(reply: ReplyTo | None, letter: bool) -> None:
    """A caller over REST has its 409; whoever produces to Kafka may not wait for a reply."""
    desk = Desk()
    desk.submit(id_="mine")
    other = job_input({"prompt": "other"}, 9, "mine", reply)
    assert (admission.accept(Round.of(desk.book, desk.wall, desk.now), other) is not None) == letter


@pytest.mark.parametrize("settled", [False, True])
def test_the_same_record_again_changes_nothing(settled: bool) -> None:
    """A redelivery while the job is live, or after its end: no event, no dispatch, no answer."""
    desk = Desk()
    desk.submit(reply=HERE)
    if settled:
        finish(desk)
    assert desk.submit(source=0, reply=HERE).empty
    assert desk.job.followers == []


def test_the_same_id_again_while_live_waits_for_the_same_result() -> None:
    """Two callers, one run, one result, two finals."""
    desk = Desk()
    desk.submit(id_="mine", reply=HERE)
    desk.submit(id_="mine", reply=THERE)
    [publish] = finish(desk).after
    assert publish.settled.reply == HERE
    assert publish.followers == (THERE,)
    assert desk.types().count("job_settled") == 1


def test_callers_of_one_job_are_bounded() -> None:
    """Each costs a final; the rest finds the result on `results`."""
    desk = Desk(Policy(followers=3))
    desk.submit(id_="mine")
    for reply in (HERE, THERE, THERE, *(ReplyTo(topic="replies", partition=number) for number in range(5, 12))):
        desk.submit(id_="mine", reply=reply)
    assert desk.job.followers == [HERE, THERE, ReplyTo(topic="replies", partition=5)]
    assert desk.types().count("caller_joined") == 10


def test_who_reads_the_events_is_owed_no_final() -> None:
    """His repeat is an event all the same, which costs the job nothing: who is superseded without knowing learns it by that."""
    desk = Desk()
    desk.submit(id_="mine", reply=HERE.model_copy(update={"reads_events": True}))
    facts = len(desk.job.facts)
    desk.submit(id_="mine", reply=THERE.model_copy(update={"reads_events": True}))
    assert desk.types()[-1] == "caller_joined"
    assert (len(desk.job.facts), desk.job.followers) == (facts, [])
    [publish] = finish(desk).after
    assert isinstance(publish, Publish)
    assert [message.topic for message in of_effect(publish, Topics())] == ["results"]


def test_the_same_id_again_after_the_end_gets_the_same_result() -> None:
    """Also once the job is forgotten, from the remembered settle event."""
    desk = Desk()
    desk.submit(id_="mine", reply=HERE)
    [result] = published(finish(desk))
    assert answers(desk.submit(id_="mine", reply=THERE)) == [(THERE, result)]
    desk.book.jobs.clear()
    assert answers(desk.submit(id_="mine", reply=THERE)) == [(THERE, result)]
    assert desk.submit(id_="mine").empty


@pytest.mark.parametrize("when", ["live", "settled", "forgotten"])
def test_the_same_id_with_another_body_is_refused(when: str) -> None:
    """The caller is told; the first job is untouched."""
    desk = Desk()
    desk.submit(id_="mine", reply=HERE)
    if when != "live":
        finish(desk)
    if when == "forgotten":
        desk.book.jobs.clear()
    before = len(desk.history)
    round_ = desk.submit(id_="mine", reply=THERE, prompt="something else")
    [(reply, result)] = answers(round_)
    assert reply == THERE
    assert (result.status, result.failure and result.failure.kind) == (Status.FAILED, FailureKind.CONFLICT)
    assert len(desk.history) == before
    assert desk.submit(id_="mine", prompt="nobody waits").empty


def test_an_id_is_free_again_after_its_window() -> None:
    """Law 1 holds for a client-given id within it."""
    desk = Desk(Policy(settled_memory_seconds=60.0))
    desk.submit(id_="mine")
    finish(desk)
    desk.book.jobs.clear()
    desk.wait(61.0)
    assert kinds(desk.submit(id_="mine")) == ["job_accepted", "step_asked"]


@pytest.mark.parametrize(
    ("job", "status", "kind"),
    [
        ({"prompt": "q", "pattern": "nonesuch"}, Status.FAILED, FailureKind.UNKNOWN_PATTERN),
        (two_steps(chain=[{"name": "a", "template": "{b}"}]), Status.FAILED, FailureKind.INVALID_JOB),
        ({"prompt": "q", "deadline_at": 1_600_000_000}, Status.EXPIRED, FailureKind.DEADLINE),
    ],
)
def test_what_cannot_be_run_ends_at_once(job: dict[str, Any], status: Status, kind: FailureKind) -> None:
    """In one append: accepted and settled, nothing asked; the caller gets a result like any other."""
    desk = Desk()
    round_ = desk.submit(reply=HERE, **job)
    assert kinds(round_) == ["job_accepted", "job_settled"]
    assert dispatched(round_) == []
    [result] = published(round_)
    assert result.status is status
    assert result.failure.kind is kind
    assert desk.book.live == 0


def test_a_cancel_before_its_job_is_kept_until_the_job_comes() -> None:
    """They lie in different topics, so a cancel may be read first."""
    desk = Desk()
    assert kinds(desk.say(CancelRequested(job="mine", reason="changed my mind"))) == ["cancel_recorded"]
    assert (list(desk.book.cancels), desk.book.kept.lowest) == (["mine"], 1)
    assert desk.say(CancelRequested(job="mine")).empty
    round_ = desk.submit(id_="mine")
    assert kinds(round_) == ["job_accepted", "job_settled"]
    assert published(round_)[0].status is Status.CANCELLED
    assert list(desk.book.cancels) == []


def test_a_cancel_and_its_job_in_one_round() -> None:
    """The job's first event is where it begins, not the cancel before it."""
    desk = Desk()

    def both(round_: Round) -> None:
        attempts.on_outcome(round_, CancelRequested(job="mine"))
        admission.accept(round_, job_input({"prompt": "q"}, 0, "mine"))

    assert kinds(desk.round(both)) == ["cancel_recorded", "job_accepted", "job_settled"]
    assert desk.begins() == 2


def test_cancels_of_unknown_jobs_are_bounded() -> None:
    """By number, the oldest first, and by time: as long as a job may be delayed."""
    desk = Desk(Policy(cancel_guesses=3))
    for number in range(5):
        desk.say(CancelRequested(job=f"x{number}"))
    assert list(desk.book.cancels) == ["x2", "x3", "x4"]
    desk.renew(99, later=KEPT_SECONDS - 1)
    assert len(list(desk.book.cancels)) == 3
    desk.renew(99, later=61)
    assert list(desk.book.cancels) == []


def test_a_cancel_of_a_remembered_job_is_no_news() -> None:
    """It has ended; nothing is recorded."""
    desk = Desk()
    desk.submit(id_="mine")
    finish(desk)
    assert desk.say(CancelRequested(job="mine")).empty
    desk.book.jobs.clear()
    assert desk.say(CancelRequested(job="mine")).empty
