"""Gates with checks, and the critic pattern's: what critics find asks for another answer; none there is a typed failure."""

from __future__ import annotations

from typing import Any

from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.patterns.cascade import CASCADE
from shared.patterns.chain import CHAIN
from shared.patterns.critic import CRITIC
from shared.patterns.port import Pattern
from shared.validators.checks import critique
from tests.support.scripted import Played, Reply, Script, crashes_alike, play

AWAY = Failure(kind=FailureKind.UNCHECKED, message="no critic answered in time")


def with_critics(model: Script) -> Script:
    def script(request: StepRequest) -> Reply:
        if not request.is_critique:
            return model(request)
        assert request.critique is not None
        return Reply(Answer(verdict=critique(request.texts, request.critique.checks, request.critique.documents)))

    return script


def played(pattern: Pattern, given: dict[str, Any], model: Script, prompt: str = "The bridge is old.") -> Played:
    job = Job(prompt=prompt, pattern=pattern.name, input=given)
    found = play(pattern, job, with_critics(model))
    crashes_alike(pattern, job, found)
    return found


def said(request: StepRequest) -> str:
    return request.messages[-1].content


def test_a_chain_step_is_asked_again_with_what_critics_found_as_data() -> None:
    steps = [{"name": "one", "template": "Quote {input}", "gate": {"checks": {"quotes": True, "personal_data": ["email"]}}}]

    def model(request: StepRequest) -> Reply:
        return Reply('It says "the bridge is old".' if "<data" in said(request) else 'It says "the bridge is new", says a@b.de.')

    found = played(CHAIN, {"steps": steps}, model)
    assert found.text == 'It says "the bridge is old".'
    assert 'the quote "the bridge is new" stands in no source' in said(found.asked[2])
    assert [request.is_critique for request in found.asked] == [False, True, False, True]


def test_a_gate_that_is_never_passed_names_checks_and_no_text() -> None:
    steps = [{"name": "one", "template": "{input}", "gate": {"checks": {"personal_data": ["email"]}, "repairs": 1}}]
    found = played(CHAIN, {"steps": steps}, lambda _: Reply("mail a@b.de"))
    assert found.failure is not None
    assert (found.failure.kind, found.failure.message) == (FailureKind.GATE_FAILED, "chain step one: found: personal_data (1)")


def test_without_a_critic_a_gate_fails_typed() -> None:
    steps = [{"name": "one", "template": "{input}", "gate": {"checks": {"secrets": True}}}]
    job = Job(prompt="q", pattern="chain", input={"steps": steps})
    found = play(CHAIN, job, lambda request: Reply(AWAY) if request.is_critique else Reply("fine"))
    assert found.failure == AWAY


def test_what_a_cheap_model_says_is_passed_on_by_checks() -> None:
    given = {"models": ["cheap", "dear"], "accept": "gate", "gate": {"checks": {"language": ["en"]}}}

    def model(request: StepRequest) -> Reply:
        german = "Das ist die Brücke, und sie ist nicht neu, aber auch nicht so alt wie die andere."
        return Reply(german if request.model == "cheap" else "That is the bridge.")

    assert played(CASCADE, given, model).text == "That is the bridge."


def test_the_critic_pattern_revises_what_critics_found() -> None:
    given = {"judge": None, "critique": {"support": 0.5}}

    def model(request: StepRequest) -> Reply:
        return Reply("The bridge is old." if "<data" in said(request) else "Bananas ripen quickly, however.")

    found = played(CRITIC, given, model)
    assert found.text == "The bridge is old."
    assert found.answer is not None
    assert found.answer.explanation is not None
    assert found.answer.explanation["passed"] is True


def test_a_schema_that_cannot_be_held_to_is_refused_when_it_is_asked_for() -> None:
    checks = {"json_schema": {"pattern": "x"}}
    for pattern, given in (
        (CHAIN, {"steps": [{"name": "one", "template": "x", "gate": {"checks": checks}}]}),
        (CRITIC, {"critique": checks}),
    ):
        job = Job(prompt="q", pattern=pattern.name, input=given)
        found = play(pattern, job, lambda _: Reply("a"))
        assert found.failure is not None
