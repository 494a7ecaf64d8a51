"""Policies: what a tenant's inputs and answers may hold, whatever pattern runs; every job also over a successor after each round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from services.planner.draft import EndTurn
from services.planner.round import Round
from services.planner.state.policy import Policy
from shared.agents.beliefs import Judgement
from shared.contracts.base import PriorityClass
from shared.contracts.blob import BlobRef
from shared.contracts.budget import TenantLimits
from shared.contracts.chat import Answer
from shared.contracts.critique import CheckSet, TenantPolicy
from shared.contracts.event import StepAsked
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.outcome import CancelRequested, StepFailed, StepSucceeded
from shared.contracts.result import Result, Status
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.contracts.verdict import CritiqueVerdict
from shared.contracts.versions import VERSIONS
from shared.validators.checks import critique
from tests.unit.planner.desk import ONE_CALL, Desk, dispatched, kinds, published, sent_after

MAIL = "write to bob@example.com"
PERSONAL = {"personal_data": ["email"]}
LATE = Policy(deadline_seconds=dict.fromkeys(PriorityClass, 100_000.0))


def policies(*given: dict[str, Any]) -> dict[str, TenantLimits]:
    return {"default": TenantLimits(policies=tuple(TenantPolicy.model_validate(each) for each in given))}


@dataclass
class Played:
    """One job to its end. `models`: what each model call was asked; `judged`: what critics were shown."""

    result: Result | None = None
    models: list[Step] = field(default_factory=list)
    judged: list[Step] = field(default_factory=list)
    round: Round | None = None
    said: tuple[Judgement, ...] = ()


def text_of(step: Step) -> str:
    return "\n".join([step.prompt or "", *(message.content for message in step.messages)])


def play(tenants: dict[str, TenantLimits], model: Callable[[Step], str], *, dies: bool = False, critic: bool = True, **job: Any) -> Played:
    """`dies`: the planner is succeeded before each outcome. Without a `critic` its outcomes never come."""
    desk, played = Desk(LATE, tenants=tenants), Played()
    round_ = desk.submit(**(job or {"prompt": "q"}))
    for _ in range(60):
        if results := published(round_):
            played.result, played.round, played.said = results[0], round_, desk.job.run.context.said
            return played
        if dies:
            round_ = desk.take_over()
        steps = {step.id: step for step in (*dispatched(round_), *sent_after(round_))}
        outcomes = []
        for step in steps.values():
            fields = {"job": step.job, "step": step.id, "attempt": step.attempt}
            if not step.is_critique:
                played.models.append(step)
                outcomes.append(StepSucceeded(**fields, answer=Answer(text=model(step), model="m:1"), usage=ONE_CALL))
            elif critic:
                assert step.critique is not None
                played.judged.append(step)
                verdict = critique(step.texts, step.critique.checks, step.critique.documents)
                outcomes.append(StepSucceeded(**fields, answer=Answer(verdict=verdict)))
        round_ = desk.say(*outcomes) if outcomes else desk.wait(desk.policy.critique_resend_seconds)
    raise AssertionError("the job has not ended")


def flagged(result: Result | None) -> list[tuple[str, str, str, int]]:
    assert result is not None
    return [(each.direction, each.check, each.action, each.count) for each in (result.answer.flagged if result.answer else ())]


DIES = pytest.mark.parametrize("dies", [False, True], ids=["one planner", "successors"])


@DIES
def test_a_tenant_without_policies_is_as_before(dies: bool) -> None:
    played = play({}, lambda _: MAIL, dies=dies)
    assert played.result is not None
    assert played.result.answer is not None
    assert played.result.answer.text == MAIL
    assert played.judged == []


@DIES
def test_what_blocks_an_input_is_named_and_no_model_is_asked(dies: bool) -> None:
    played = play(policies({"direction": "input", "checks": PERSONAL}), lambda _: "a", dies=dies, prompt=MAIL)
    assert played.models == []
    failure = played.result.failure
    assert failure.kind is FailureKind.BLOCKED
    assert "personal_data (1)" in failure.message
    assert "bob" not in failure.message
    assert [(each.check, each.count) for each in failure.flagged] == [("personal_data", 1)]


@DIES
@pytest.mark.parametrize(
    "job",
    [
        {"prompt": MAIL},
        {"messages": [{"role": "system", "content": MAIL}, {"role": "user", "content": f"and {MAIL}"}]},
        {"prompt": "q", "system": MAIL},
        {"prompt": MAIL, "pattern": "chain", "chain": [{"name": "one", "template": f"say {{input}}, {MAIL}"}]},
        {"prompt": MAIL, "pattern": "vote", "input": {"samples": 3}},
        {"prompt": "q", "tools": [{"type": "function", "function": {"name": "f", "description": MAIL}}]},
    ],
)
def test_a_redacted_input_reaches_no_model(job: dict[str, Any], dies: bool) -> None:
    """Wherever it stands, and whatever pattern runs."""
    played = play(policies({"direction": "input", "checks": PERSONAL, "action": "redact"}), lambda _: "Answer: a", dies=dies, **job)
    assert played.result.status is Status.SUCCEEDED
    assert played.models
    for step in played.models:
        assert b"bob@" not in step.to_bytes()
        assert b"[email]" in step.to_bytes()
    assert flagged(played.result)[0][:3] == ("input", "personal_data", "redact")


@DIES
def test_the_texts_of_an_embedding_are_redacted(dies: bool) -> None:
    both = ({"direction": "input", "checks": PERSONAL, "action": "redact"}, {"direction": "answer", "checks": {"min_chars": 5}})
    played = play(policies(*both), lambda _: "", dies=dies, texts=["fine", MAIL])
    assert played.models[0].texts == ("fine", "write to [email]")
    assert played.result.status is Status.SUCCEEDED


@DIES
def test_a_flag_changes_nothing_but_is_told(dies: bool) -> None:
    both = ({"direction": d, "checks": PERSONAL, "action": "flag"} for d in ("input", "answer"))
    played = play(policies(*both), lambda _: f"{MAIL} or {MAIL}", dies=dies, prompt=MAIL)
    assert played.result.answer.text == f"{MAIL} or {MAIL}"
    assert flagged(played.result) == [("input", "personal_data", "flag", 1), ("answer", "personal_data", "flag", 2)]


@DIES
def test_an_answer_is_redacted_whole(dies: bool) -> None:
    """Its explanation, too: what a pattern tells of its drafts."""
    given: dict[str, Any] = {"pattern": "critic", "input": {"judge": None, "rounds": 0}}
    played = play(policies({"direction": "answer", "checks": PERSONAL, "action": "redact"}), lambda _: MAIL, dies=dies, prompt="q", **given)
    assert b"bob@" not in played.result.to_bytes()
    assert played.result.answer.text == "write to [email]"
    votes: dict[str, Any] = {"pattern": "vote", "input": {"samples": 3}}
    answers = policies({"direction": "answer", "checks": PERSONAL, "action": "redact"})
    played = play(answers, lambda _: "Answer: bob@example.com", dies=dies, prompt="q", **votes)
    assert b"bob@" not in played.result.to_bytes()


@DIES
def test_an_answer_is_blocked(dies: bool) -> None:
    played = play(policies({"direction": "answer", "checks": {"max_chars": 3}}), lambda _: "much too long", dies=dies)
    assert played.result.failure.kind is FailureKind.BLOCKED
    assert played.result.answer is None


@DIES
def test_an_answer_is_asked_for_again_with_what_is_wrong_as_data(dies: bool) -> None:
    tenants = policies({"direction": "answer", "checks": {"max_chars": 5}, "action": "retry"})
    played = play(tenants, lambda step: "short" if "<data" in text_of(step) else "much too long", dies=dies)
    assert played.result.answer.text == "short"
    assert "it may have 5 at most" in text_of(played.models[1])
    assert flagged(played.result) == [("answer", "max_chars", "retry", 1)]
    played = play(tenants, lambda _: "much too long", dies=dies)
    assert (played.result.failure.kind, len(played.models)) == (FailureKind.BLOCKED, 2)
    both = (
        {"direction": "answer", "checks": {"max_chars": 15}, "action": "retry"},
        {"direction": "answer", "checks": PERSONAL, "action": "flag"},
    )
    played = play(policies(*both), lambda step: "short" if "<data" in text_of(step) else MAIL, dies=dies)
    assert flagged(played.result) == [("answer", "max_chars", "retry", 1)], "what was flagged is not there any more"


@pytest.mark.parametrize(
    ("action", "away", "passes"),
    [
        ("block", None, False),
        ("redact", None, False),
        ("retry", None, True),
        ("flag", None, True),
        ("block", "pass", True),
        ("flag", "refuse", False),
    ],
)
@DIES
def test_without_a_critic_its_policy_says_what_holds(action: str, away: str | None, passes: bool, dies: bool) -> None:
    """In a bounded time, and typed. A successor waits anew, so here it comes only once."""
    if dies:
        return
    tenants = policies({"direction": "answer", "checks": PERSONAL, "action": action, "away": away})
    played = play(tenants, lambda _: "fine", critic=False)
    assert (played.result.status is Status.SUCCEEDED) == passes
    if passes:
        assert flagged(played.result) == [("answer", "personal_data", "unchecked", 1)]
    else:
        assert played.result.failure.kind is FailureKind.UNCHECKED


def test_all_policies_of_a_direction_are_judged_at_once_and_what_blocks_goes_first() -> None:
    given = [
        {"direction": "answer", "checks": PERSONAL, "action": "redact"},
        {"direction": "answer", "checks": {"secrets": True}},
        {"direction": "answer", "checks": {"language": ["en"]}, "action": "flag"},
    ]
    played = play(policies(*given), lambda _: MAIL)
    assert played.result.answer.text == "write to [email]"
    assert len(played.judged) == 3
    played = play(policies(*given), lambda _: f"{MAIL} AKIAIOSFODNN7EXAMPLE")
    assert played.result.failure.kind is FailureKind.BLOCKED
    assert "secrets (1)" in played.result.failure.message


def test_checks_that_compare_see_what_was_asked() -> None:
    tenants = policies({"direction": "answer", "checks": {"quotes": True}})
    assert play(tenants, lambda _: 'It says "the bridge is old".', prompt="Text: the bridge is old.").result.status is Status.SUCCEEDED
    assert play(tenants, lambda _: 'It says "the bridge is new".', prompt="Text: the bridge is old.").result.status is Status.FAILED


def _judging(verdict: str, step: Step) -> str:
    return verdict if "is it polite" in text_of(step) else "fine words"


def test_a_judge_is_asked_once_the_checks_have_passed() -> None:
    """By a model, with its agent pinned. No verdict is no approval."""
    judge = {"rubric": "is it polite?"}
    tenants = policies({"direction": "answer", "checks": {"min_chars": 1}, "judge": judge})
    for score, status in ((5, Status.SUCCEEDED), (2, Status.FAILED)):
        said = f'{{"quote": "fine words", "score": {score}, "critique": "be kind"}}'
        played = play(tenants, partial(_judging, said))
        assert played.result.status is status
        assert [step.agent for step in played.models] == ["chat", "critic"]
        assert [each.good for each in played.said] == [score == 5]
    played = play(tenants, lambda _: "fine words")
    assert played.result.failure.kind is FailureKind.UNCHECKED
    assert played.said == ()


def test_a_stream_that_cannot_be_checked_while_it_leaves_is_held() -> None:
    """Else its worker gets what may not leave."""
    held = play(policies({"direction": "answer", "checks": {"max_chars": 50}}), lambda _: "a", prompt="q", stream=True)
    assert not held.models[0].stream
    guarded = policies(
        {"direction": "answer", "checks": PERSONAL, "action": "redact"}, {"direction": "answer", "checks": {"secrets": True}}
    )
    desk = Desk(LATE, tenants=guarded)
    [step] = dispatched(desk.submit(prompt="q", stream=True))
    assert step.stream
    assert [(each.checks.asked, each.action) for each in step.guard] == [(("personal_data",), "redact"), (("secrets",), "block")]
    [step] = dispatched(Desk(LATE, tenants=policies({"direction": "answer", "checks": {"max_chars": 5}, "action": "flag"})).submit(
        prompt="q", stream=True
    ))  # fmt: skip
    assert step.stream
    assert not step.guard


def test_what_lies_in_a_blob_is_judged_there_and_not_redacted() -> None:
    blob = BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=70_000, written_at=1.0)
    desk = Desk(LATE, tenants=policies({"direction": "answer", "checks": PERSONAL, "action": "redact"}))
    [step] = dispatched(desk.submit())
    done = {"job": step.job, "step": step.id, "attempt": 1}
    [asked] = dispatched(desk.say(StepSucceeded(**done, answer=Answer(blob=blob), usage=ONE_CALL)))
    assert asked.critique.answer == blob
    found = critique([MAIL], CheckSet(personal_data=("email",)))
    [result] = published(desk.say(StepSucceeded(job=asked.job, step=asked.id, attempt=1, answer=Answer(verdict=found))))
    assert result.failure.kind is FailureKind.BLOCKED


def test_what_is_found_beyond_what_is_listed_is_not_redacted_but_blocked() -> None:
    played = play(policies({"direction": "answer", "checks": PERSONAL, "action": "redact"}), lambda _: f"{MAIL}, " * 300)
    assert played.result.failure.kind is FailureKind.BLOCKED


def test_a_limit_lets_no_unjudged_answer_out() -> None:
    """Without a policy it would be the best so far."""
    chain: dict[str, Any] = {"pattern": "chain", "chain": [{"name": "one", "template": "{input}"}, {"name": "two", "template": "{one}"}]}
    limits: dict[str, Any] = {"limits": {"calls": 1}}
    assert play({}, lambda _: MAIL, prompt="q", **chain, **limits).result.answer.text == MAIL
    played = play(policies({"direction": "answer", "checks": PERSONAL, "action": "redact"}), lambda _: MAIL, prompt="q", **chain, **limits)
    assert played.result.failure.kind is FailureKind.LIMIT


def test_a_critique_uses_no_call_and_no_token() -> None:
    both = ({"direction": d, "checks": PERSONAL} for d in ("input", "answer"))
    tenants = policies(*both)
    played = play(tenants, lambda _: "a", prompt="q", limits={"calls": 1, "tokens": 5_000})
    assert (played.result.usage.calls, played.result.steps) == (1, 3)
    tenants = {"default": tenants["default"].changed(concurrent_jobs=3)}
    desk = Desk(LATE, tenants=tenants)
    round_ = desk.submit(prompt="q")
    assert not dispatched(round_), "it waits for its tenant's budget like any first step"


def test_policies_are_pinned_and_written_in_a_version_that_no_older_planner_reads() -> None:
    tenants = policies({"direction": "answer", "checks": PERSONAL, "action": "redact"})
    desk = Desk(LATE, tenants=tenants)
    round_ = desk.submit(prompt="q")
    assert [round_.newer.get((group, 0), VERSIONS["job_accepted"]) for group in round_.events] == [6]
    tenants.clear()
    [step] = dispatched(desk.take_over())
    [asked] = dispatched(desk.say(StepSucceeded(job=step.job, step=step.id, attempt=1, answer=Answer(text=MAIL), usage=ONE_CALL)))
    assert asked.is_critique
    snapshot = desk.snapshot(desk.job)
    assert set(snapshot.newer.values()) == {6}


def test_what_a_turn_said_is_as_the_pattern_saw_it() -> None:
    """A later turn's models read nothing of it either."""
    tenants = policies({"direction": "input", "checks": PERSONAL, "action": "redact"})
    desk = Desk(LATE, tenants=tenants)
    desk.submit(prompt=MAIL, conversation="c")
    job = desk.job
    job.awaits_turn = False
    job.run.start()
    (round_ := Round.of(desk.book, desk.wall, desk.now)).emit(job, _asked(job))
    [step] = job.steps.values()
    verdict = critique(step.request.texts, step.request.critique.checks)
    job.run.resume(step.id, Answer(verdict=verdict))
    assert job.run.context.seen.prompt == "write to [email]"
    round_.settle(job, Status.CANCELLED, Failure(kind=FailureKind.CANCELLED, message="x"), None)
    [end] = [effect for effect in round_.after if isinstance(effect, EndTurn)]
    assert end.request.turns[-1].content == "write to [email]"


def _asked(job: Any) -> Any:
    [want] = job.run.wanted()
    return StepAsked(epoch=0, job=job.id, at=1.0, step=want.step, path=want.path, agent="critique", model="auto")


# The step itself


def critiqued_desk() -> tuple[Desk, Step]:
    desk = Desk(LATE, tenants=policies({"direction": "input", "checks": PERSONAL}))
    [step] = dispatched(desk.submit(prompt="q"))
    return desk, step


def fine(step: Step, attempt: int = 1) -> StepSucceeded:
    return StepSucceeded(job=step.job, step=step.id, attempt=attempt, answer=Answer(verdict=CritiqueVerdict()))


def test_a_critique_is_sent_again_as_the_same_attempt_until_the_patience_is_over() -> None:
    desk, step = critiqued_desk()
    sent = []
    for _ in range(30):
        round_ = desk.wait(0.5)
        sent += dispatched(round_)
        if published(round_):
            break
    assert {(each.id, each.attempt) for each in sent} == {(step.id, 1)}
    assert 2 <= len(sent) <= 4
    assert published(round_)[0].failure.kind is FailureKind.UNCHECKED


def test_a_late_twin_changes_nothing() -> None:
    """Neither after the first outcome nor after the patience; nor an outcome that comes before its ask is in history."""
    desk, step = critiqued_desk()
    [model] = dispatched(desk.say(fine(step)))
    assert kinds(desk.say(fine(step))) == []
    assert desk.step.id == model.id
    desk, step = critiqued_desk()
    assert published(desk.wait(10.1)) or published(desk.wait(10.1))
    assert desk.say(fine(step)).empty


def test_a_critic_that_fails_is_asked_again_as_another_attempt() -> None:
    desk, step = critiqued_desk()
    failure = Failure(kind=FailureKind.INTERNAL, message="no")
    desk.say(StepFailed(job=step.job, step=step.id, attempt=1, failure=failure, usage=Usage()))
    [again] = sent_after(desk.wait(desk.policy.retry.cap_seconds))
    assert (again.id, again.attempt, again.is_critique) == (step.id, 2, True)


def test_the_end_of_a_job_stops_no_node_for_a_critique() -> None:
    desk, _ = critiqued_desk()
    round_ = desk.say(CancelRequested(job=desk.job.id))
    assert not any(type(effect).__name__.startswith("Stop") for effect in round_.after)
