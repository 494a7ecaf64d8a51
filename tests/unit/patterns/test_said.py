"""What patterns note of what judges say of a model's answer: only what was judged, of the model that wrote it, and the same in a re-run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.contracts.chat import Answer, Served
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.review import Decision
from shared.contracts.step import StepRequest
from shared.contracts.verdict import CritiqueVerdict
from shared.patterns.cascade import CASCADE
from shared.patterns.chain import CHAIN, judge_by
from shared.patterns.context import MOST_SAID, Context
from shared.patterns.critic import CRITIC
from shared.patterns.maestro import MAESTRO
from shared.patterns.port import Pattern
from shared.patterns.single import request_of
from tests.support.scripted import DOWN, Reply, Script, play, team

TEAM = team("critic", "coordinator", "research", "reasoning", "creative", "code")
QUOTE = "the answer"
GATED = {"steps": [{"name": "a", "template": "Write a poem about the moon", "gate": {"contains": "yes", "repairs": 1}}]}
CHECKED = {"steps": [{"name": "a", "template": "{input}", "gate": {"checks": {"quotes": True}}}]}
OPEN = {"steps": [{"name": "a", "template": "{input}"}]}
MODELS = {"models": ["cheap", "dear"]}


def judge(score: int, **answers: str) -> Script:
    """Models that say this, by name; a judge that gives this score."""

    def script(request: StepRequest) -> Reply:
        if request.is_critique:
            return Reply(Answer(verdict=CritiqueVerdict()))
        asks = request.format if isinstance(request.format, dict) else {}
        if "score" in asks.get("properties", {}):
            return Reply(json.dumps({"quote": QUOTE, "evidence": QUOTE, "critique": "", "score": score}))
        return Reply(Answer(text=answers.get(request.model, QUOTE), model=request.model))

    return script


def noted(pattern: Pattern, given: dict[str, Any], script: Script, **job: Any) -> list[tuple[str, str, bool]]:
    made = Job(**{"prompt": "Write a python function", "model": "m", "pattern": pattern.name, "input": given, **job})
    return [(one.model, one.kind, one.good) for one in play(pattern, made, script, team=TEAM).said]


CODE = "code"


@pytest.mark.parametrize(
    ("pattern", "given", "script", "expected"),
    [
        (CHAIN, GATED, judge(5, m="yes"), [("m:latest", "creative", True)]),
        (CHAIN, GATED, judge(5, m="no"), [("m:latest", "creative", False)]),
        (CHAIN, CHECKED, judge(5), [("m:latest", CODE, True)]),
        (CHAIN, OPEN, judge(5), []),
        (CHAIN, OPEN, judge(5, m=""), [("m:latest", CODE, False)]),
        (CRITIC, {"rounds": 0}, judge(4), [("m:latest", CODE, True)]),
        (CRITIC, {"rounds": 2}, judge(2), [("m:latest", CODE, False)]),
        (CRITIC, {"judge": None, "checks": {"min_chars": 500}, "rounds": 0}, judge(2), [("m:latest", CODE, False)]),
        (CRITIC, {"rounds": 0}, judge(4, m="nothing of it"), []),
        (CASCADE, {**MODELS, "accept": "critic"}, judge(9), [("cheap:latest", CODE, True)]),
        (CASCADE, {**MODELS, "accept": "critic"}, judge(1), [("cheap:latest", CODE, False)]),
        (CASCADE, {**MODELS, "accept": "gate", "gate": {"contains": "yes"}}, judge(1), [("cheap:latest", CODE, False)]),
        (CASCADE, {**MODELS, "answer": "text"}, judge(1), [("cheap:latest", CODE, True)]),
        (MAESTRO, {}, judge(5), [("m:latest", CODE, True)]),
    ],
)
def test_a_verdict_is_noted(pattern: Pattern, given: dict[str, Any], script: Script, expected: list[tuple[str, str, bool]]) -> None:
    """Of a first answer alone: what is written again with its faults named says little of a model. A judge that quotes what is not there
    has said nothing, and who passes nothing but an open gate has shown nothing.
    """
    assert noted(pattern, given, script) == expected


@pytest.mark.parametrize(
    "pattern", [(CHAIN, GATED), (CASCADE, {**MODELS, "accept": "critic"}), (CRITIC, {})], ids=lambda each: each[0].name
)
@pytest.mark.parametrize("failure", [DOWN, Failure(kind=FailureKind.UNCHECKED, message="no critic")])
def test_what_fails_is_no_verdict(pattern: tuple[Pattern, dict[str, Any]], failure: Failure) -> None:
    assert noted(*pattern, lambda _: Reply(failure)) == []


@pytest.mark.parametrize(
    ("verdict", "by", "good"),
    [("approve", "ann", [True]), ("reject", "ann", [False]), ("edit", "ann", []), ("approve", "", []), ("reject", "", [])],
)
def test_people_have_said_it(verdict: Any, by: str, good: list[bool]) -> None:
    """Nobody knows how bad a text was that they edit; and a time that is over has said nothing."""
    ctx = Context()
    judge_by(ctx, request_of(Job(prompt="x")), Answer(text="x", model="m"), Decision(verdict, "x", (by,) if by else (), 0.0))
    assert [each.good for each in ctx.said] == good


def test_what_the_cache_serves_and_what_nobody_wrote_counts_for_nobody() -> None:
    ctx, asked = Context(), request_of(Job(prompt="x"))
    ctx.judge(asked, Answer(text="x", model="m", served=Served(kind="exact", entry="e")), True)
    ctx.judge(asked, Answer(text="x"), True)
    assert ctx.said == ()
    for _ in range(2 * MOST_SAID):
        ctx.judge(asked, Answer(text="x", model="m"), True)
    assert len(ctx.said) == MOST_SAID
