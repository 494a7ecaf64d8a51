"""Reviews: people decide, or the time does; each once, whatever comes again, and whoever has the home."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from services.planner.deciding import ending
from services.planner.job.open_step import Phase
from services.planner.state.policy import Policy
from shared.contracts.chat import Answer
from shared.contracts.event import EVENT
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.result import Status
from shared.contracts.review import REVIEW_BYTES, Deliberation, ReviewDecided, ReviewGiven, ReviewOpened, Verdict
from shared.contracts.step import StepRequest
from shared.contracts.versions import VERSIONS, version_of
from shared.patterns.context import Context
from shared.patterns.port import Pattern, PatternInput
from tests.unit.planner import desk as desks
from tests.unit.planner.desk import Desk, published, succeeded

DAY = 86_400.0


class Asked(PatternInput):
    """As `ctx.review` takes it."""

    quorum: int = 1
    assignees: tuple[str, ...] = ()
    default: str = "reject"
    deadline_seconds: float = DAY
    escalate_to: tuple[str, ...] = ()
    escalate_after_seconds: float | None = None


async def reviewed(ctx: Context, job: Job, ask: Asked) -> Answer:
    """A call, people, another call."""
    first = await ctx.ask(StepRequest(prompt="draft"))
    said = await ctx.review(first.text, question="good?", **dict(ask))
    last = await ctx.ask(StepRequest(prompt=f"{said.verdict} {said.text}"))
    return Answer(text=f"{said.verdict} {said.text} by {','.join(said.by)}: {last.text}")


async def either(ctx: Context, job: Job, ask: PatternInput) -> Answer:
    """What comes first, a person or a model."""
    found = await ctx.gather(ctx.review("text", question="good?"), ctx.ask(StepRequest(prompt="x")), quorum=1)
    return Answer(text=str([type(one).__name__ for one in found if one is not None]))


async def huge(ctx: Context, job: Job, ask: PatternInput) -> Answer:
    return Answer(text=str(await ctx.review("x" * REVIEW_BYTES, question="good?")))


@pytest.fixture(autouse=True)
def patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "EXTRA", (Pattern("reviewed", 1, reviewed, Asked), Pattern("either", 1, either), Pattern("huge", 1, huge)))


def waiting(policy: Policy | None = None, **asked: Any) -> Desk:
    """A desk with one job that waits for people."""
    desk = Desk(policy)
    desk.submit(prompt="q", pattern="reviewed", input=asked)
    desk.say(succeeded(desk.job, desk.step, claim=None))
    assert desk.step.phase is Phase.REVIEWED
    return desk


def opened(desk: Desk) -> ReviewOpened:
    return [event for _, value in desk.history if isinstance(event := EVENT.validate_json(value), ReviewOpened)][-1]


def decided(desk: Desk) -> list[ReviewDecided]:
    return [event for _, value in desk.history if isinstance(event := EVENT.validate_json(value), ReviewDecided)]


def says(desk: Desk, by: str, verdict: Verdict = "approve", text: str = "", **changes: Any) -> ReviewGiven:
    review = opened(desk)
    given = {"job": review.job, "step": review.step, "digest": review.digest, "by": by, "verdict": verdict, "text": text}
    return ReviewGiven(**{**given, **changes})


def prompt(desk: Desk) -> str | None:
    """Of the call that follows."""
    request = desk.step.request
    return None if request is None else request.prompt


@pytest.mark.parametrize(("verdict", "text"), [("approve", ""), ("reject", "no"), ("edit", "better"), ("answer", "42")])
def test_the_pattern_goes_on_with_what_somebody_says(verdict: Verdict, text: str) -> None:
    """His verdict, his text and his name."""
    desk = waiting()
    desk.say(says(desk, "ann", verdict, text))
    assert prompt(desk) == f"{verdict} {text}"
    round_ = desk.say(succeeded(desk.job, desk.step, claim=None))
    assert published(round_)[0].answer.text.startswith(f"{verdict} {text} by ann")


def test_of_two_decisions_the_first_counts() -> None:
    """The second, in the same round or later, changes nothing."""
    desk = waiting()
    desk.say(says(desk, "ann"), says(desk, "bob", "reject"))
    desk.say(says(desk, "cem", "reject"))
    assert [(event.by, event.over) for event in decided(desk)] == [("ann", True)]
    assert prompt(desk) == "approve "


@pytest.mark.parametrize("default", ["approve", "reject"])
def test_when_nobody_says_anything_the_default_holds(default: str) -> None:
    """Not before its time; what comes afterwards changes nothing."""
    desk = waiting(default=default)
    desk.wait(DAY - 1)
    assert decided(desk) == []
    desk.wait(1.02)
    desk.say(says(desk, "ann", "edit", "late"))
    assert [(event.by, event.verdict) for event in decided(desk)] == [(None, default)]
    assert prompt(desk) == f"{default} "


def test_at_the_instant_of_expiry_one_of_both_holds() -> None:
    """Outcomes are folded first: who was in time is heard, and the time is over for nobody else."""
    desk = waiting()
    desk.now += DAY + 1
    desk.wall += DAY + 1
    desk.say(says(desk, "ann"))
    desk.wait(0.0)
    assert [event.by for event in decided(desk)] == ["ann"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"assignees": ["ann"]}, {"by": "bob"}),
        ({}, {"by": "bob", "digest": "0" * 32}),
        ({}, {"by": "bob", "step": "0" * 32}),
        ({}, {"by": "bob", "job": "another"}),
        ({"assignees": ["ann"], "escalate_to": ["bob"], "escalate_after_seconds": 60.0}, {"by": "bob"}),
    ],
)
def test_what_does_not_count_changes_nothing(asked: dict[str, Any], given: dict[str, Any]) -> None:
    """Not his to decide (yet), another text, another review: no event, and the review waits on."""
    desk = waiting(**asked)
    before = len(desk.history)
    desk.say(says(desk, **given))
    assert (len(desk.history), desk.step.phase) == (before, Phase.REVIEWED)
    desk.say(says(desk, "ann"))
    assert prompt(desk) == "approve "


def test_a_quorum_counts_people() -> None:
    """One who says it twice is one; who says something else does not add to it; the decision names those who agree."""
    desk = waiting(quorum=2)
    desk.say(says(desk, "ann"), says(desk, "ann"))
    desk.say(says(desk, "bob", "edit", "other"))
    assert [(event.by, event.over) for event in decided(desk)] == [("ann", False), ("bob", False)]
    desk.take_over()
    desk.say(says(desk, "ann"))
    assert desk.step.phase is Phase.REVIEWED
    desk.say(says(desk, "cem"))
    round_ = desk.say(succeeded(desk.job, desk.step, claim=None))
    assert "by ann,cem" in published(round_)[0].answer.text


def test_one_rejection_is_enough() -> None:
    """Whatever the quorum."""
    desk = waiting(quorum=3)
    desk.say(says(desk, "ann"), says(desk, "bob", "reject"))
    assert prompt(desk) == "reject "


def test_others_are_asked_after_a_while() -> None:
    """From then on they may decide, too; also where the planner was away at that time."""
    desk = waiting(assignees=["ann"], escalate_to=["bob"], escalate_after_seconds=60.0)
    desk.now += 61
    desk.wall += 61
    desk.take_over()
    desk.wait(0.02)
    assert desk.types()[-1] == "review_escalated"
    desk.say(says(desk, "bob"))
    assert prompt(desk) == "approve "


@pytest.mark.parametrize("snapshot", [False, True])
def test_an_approval_after_a_week_and_two_take_overs_goes_on_once(snapshot: bool) -> None:
    """The default deadline of the job is an hour: it does not run while people are waited for, and runs on afterwards."""
    desk = waiting(deadline_seconds=30 * DAY)
    job = desk.job.id
    for _ in range(2):
        desk.wait(3.5 * DAY)
        if snapshot:
            desk.snapshot(desk.job)
        desk.take_over()
    desk.wait(1.0)
    desk.say(says(desk, "ann"), says(desk, "ann"))
    assert [event.by for event in decided(desk)] == ["ann"]
    assert desk.job.deadline_due - desk.now == pytest.approx(3_600.0, abs=2.0)
    desk.take_over()
    assert desk.job.deadline_due - desk.now == pytest.approx(3_600.0, abs=2.0)
    round_ = desk.say(succeeded(desk.job, desk.step, claim=None))
    assert [(result.job, result.status) for result in published(round_)] == [(job, Status.SUCCEEDED)]


@pytest.mark.parametrize("named", [{"deadline_seconds": 600.0}, {"deadline_at": 1_700_000_600.0}])
def test_a_deadline_that_somebody_named_holds(named: dict[str, Any]) -> None:
    """The job ends in its review, and what is said then is not heard."""
    desk = Desk()
    desk.submit(prompt="q", pattern="reviewed", **named)
    desk.say(succeeded(desk.job, desk.step, claim=None))
    round_ = desk.wait(600.02)
    assert published(round_)[0].status is Status.EXPIRED
    desk.say(says(desk, "ann"))
    assert desk.types()[-1] == "job_settled"


def test_a_default_deadline_does_not_hold_while_a_job_only_waits() -> None:
    """As soon as a call runs beside, it does."""
    desk = waiting()
    assert desk.job.deadline_due == inf
    beside = Desk()
    beside.submit(prompt="q", pattern="either")
    assert beside.job.deadline_due == beside.now + 3_600.0


def test_who_waits_leaves_his_place_and_has_it_again() -> None:
    """Of his class and tenant; also for a successor. Where too many wait, one keeps his place."""
    desk = waiting(replace(Policy(), waiting_places=1))
    count = desk.book.live_count
    assert (count.jobs, count.waiting, count.of_tenant) == (0, 1, {})
    desk.submit(prompt="q", pattern="reviewed")
    desk.say(succeeded(desk.job, desk.step, claim=None))
    assert (count.jobs, count.waiting) == (1, 1)
    desk.take_over()
    count = desk.book.live_count
    assert (count.jobs, count.waiting) == (1, 1)
    for job in list(desk.book.jobs):
        ending.cancel(desk.round(lambda _: None), desk.book.jobs[job], "enough")
    assert (count.jobs, count.waiting, set(count.of_class.values()), count.of_tenant) == (0, 0, {0}, {})


def test_a_place_is_had_again_whatever_the_room() -> None:
    """With the event by which the job goes on."""
    desk = waiting()
    desk.say(says(desk, "ann"))
    assert (desk.book.live_count.jobs, desk.book.live_count.waiting) == (1, 0)


@pytest.mark.parametrize("first", ["person", "model"])
def test_who_comes_too_late_in_a_gather_is_withdrawn(first: str) -> None:
    """A review that nobody waits for any more is told as such; what is said of it is not heard, also not by a successor."""
    desk = Desk()
    desk.submit(prompt="q", pattern="either")
    model = next(step for step in desk.job.steps.values() if step.request is not None)
    given = says(desk, "ann")
    if first == "person":
        assert published(desk.say(given))[0].answer.text == "['Decision']"
    else:
        assert published(desk.say(succeeded(desk.job, model, claim=None), given))[0].answer.text == "['Answer']"
        assert "review_withdrawn" in desk.types()
    assert len(decided(desk)) == (first == "person")


def test_a_text_that_no_record_holds_ends_the_job_typed() -> None:
    desk = Desk()
    round_ = desk.submit(prompt="q", pattern="huge")
    assert published(round_)[0].failure.kind is FailureKind.TOO_LARGE


def test_an_older_planner_leaves_reviews_alone() -> None:
    """Their events, and a snapshot that holds one, are of a version that it does not know; any other snapshot is not."""
    desk = waiting()
    desk.snapshot(desk.job)
    assert version_of(last(desk)) == version_of(opened(desk)) == VERSIONS["review_opened"]
    bare = Desk()
    bare.submit(prompt='"type":"review_opened"', pattern="reviewed")
    bare.snapshot(bare.job)
    assert version_of(last(bare)) < VERSIONS["review_opened"]


def last(desk: Desk) -> Any:
    """The newest event of its history."""
    return EVENT.validate_json(desk.history[-1][1])


def test_the_fold_keeps_no_text() -> None:
    """It lies in history, once."""
    desk = waiting()
    assert opened(desk).artefact
    assert desk.step.review is not None
    assert desk.step.review.opened.artefact == ""
    assert Deliberation.of(opened(desk)) == desk.step.review


@pytest.mark.parametrize("verdict", ["approve", "edit", "answer", "reject", None])
def test_a_step_of_a_chain_may_ask_people(verdict: Verdict | None) -> None:
    """What they let through goes on, and is what the chain answers; a rejection, and silence, end it typed. Nothing of it was streamed."""
    desk = Desk()
    step = {"name": "a", "template": "{input}", "gate": {"not_empty": False, "repairs": 0}, "review": {"assignees": ["ann"]}}
    desk.submit(prompt="q", pattern="chain", chain=[step], stream=True)
    assert desk.step.request is not None
    assert not desk.step.request.stream
    desk.say(succeeded(desk.job, desk.step, claim=None))
    draft = opened(desk).artefact
    round_ = desk.wait(DAY + 1) if verdict is None else desk.say(says(desk, "ann", verdict, "theirs"))
    [result] = published(round_)
    if verdict in (None, "reject"):
        assert result.failure is not None
        assert result.failure.kind is FailureKind.GATE_FAILED
    else:
        assert result.answer.text == (draft if verdict == "approve" else "theirs")
