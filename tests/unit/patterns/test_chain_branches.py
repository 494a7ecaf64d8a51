"""chain: steps beside each other, steps that are left out, and prompts that are written anew within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.agents import PinnedPrompt
from shared.contracts.blob import BlobRef
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job, Needs
from shared.contracts.step import StepRequest
from shared.errors import InvalidInput
from shared.patterns.chain import CHAIN
from tests.support.scripted import DOWN, Played, Reply, Script, by_agent, crashes_alike, play, team

TOLD = PinnedPrompt(reference="told@live", version="0" * 12, template="{{ tone }}: {{ s0 }}", variables=("s0", "tone"))
TEAM = team("critic", "research").model_copy(update={"prompts": (TOLD,)})


def chained(*steps: dict[str, Any], script: Script, stream: bool = False) -> tuple[Job, Played]:
    named = [
        {"name": f"s{number}", **({} if "prompt_ref" in step else {"template": "{input}"}), **step} for number, step in enumerate(steps)
    ]
    job = Job(prompt="in", pattern="chain", input={"steps": named}, stream=stream)
    return job, play(CHAIN, job, script, team=TEAM)


def echo(request: StepRequest) -> Reply:
    return Reply(f"<{request.messages[-1].content}>", 2.0)


def test_steps_beside_each_other_take_the_time_of_one_and_are_read_by_the_next() -> None:
    job, played = chained({}, {"template": "b {s0}"}, {"template": "c {s0}", "beside": True}, {"template": "{s1} {s2}"}, script=echo)
    assert played.text == "<<b <in>> <c <in>>>"
    assert (played.seconds, played.widest) == (6.0, 2)
    crashes_alike(CHAIN, job, played, team=TEAM)


@pytest.mark.parametrize(
    ("when", "runs"),
    [
        ({"contains": "IN"}, True),
        ({"contains": "other"}, False),
        ({"contains": "in", "absent": True}, False),
        ({"contains": "other", "absent": True}, True),
    ],
)
def test_a_step_runs_only_when_an_earlier_answer_says_so(when: dict[str, Any], runs: bool) -> None:
    job, played = chained({}, {"template": "extra", "when": {"step": "s0", **when}}, {"template": "end {s1}"}, script=echo)
    assert played.text == ("<end <extra>>" if runs else "<end >")
    assert len(played.asked) == 2 + runs
    crashes_alike(CHAIN, job, played, team=TEAM)


@pytest.mark.parametrize("agent", [{}, {"agent": "critic"}])
def test_what_a_step_needs_goes_over_what_its_job_and_agent_need(agent: dict[str, str]) -> None:
    """Field by field: where its job may run no step leaves by saying something else."""
    members = tuple(one.changed(needs=Needs(at_most="batch")) for one in TEAM.members)
    steps = [{"name": "a", "template": "x", **agent, "needs": {"prefers": ["gpu"]}}, {"name": "b", "template": "x", **agent}]
    job = Job(prompt="in", pattern="chain", input={"steps": steps}, needs=Needs(tags=("eu",), min_vram_bytes=9))
    [first, second] = [one.needs for one in play(CHAIN, job, echo, team=TEAM.changed(members=members)).asked]
    assert second == Needs(tags=("eu",), min_vram_bytes=9, at_most="batch" if agent else None)
    assert first == second.changed(prefers=("gpu",))


def test_the_answer_is_that_of_the_last_step_that_was_not_left_out() -> None:
    _, played = chained({}, {"when": {"step": "s0", "contains": "never"}}, script=echo)
    assert played.text == "<in>"


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([{}, {"beside": True, "template": "{s0}"}], "step s1 names s0"),
        ([{"when": {"step": "s1", "contains": "x"}}, {}], "step s0 names s1"),
        ([{}, {"beside": True, "when": {"step": "s0", "contains": "x"}}], "step s1 names s0"),
    ],
)
def test_what_runs_beside_a_step_cannot_read_it(steps: list[dict[str, Any]], wrong: str) -> None:
    named = [{"name": f"s{number}", "template": "x", **step} for number, step in enumerate(steps)]
    with pytest.raises(InvalidInput, match=wrong):
        CHAIN.read(Job(prompt="in", pattern="chain", input={"steps": named}))


@pytest.mark.parametrize(
    ("rewritten", "asked"),
    [("better", "better"), ("", "in"), ("   ", "in"), ("x" * 51, "in"), ("{input} {s9}", "{input} {s9}"), (DOWN, "in")],
)
def test_a_prompt_is_written_anew_within_bounds_or_stays(rewritten: str | Failure, asked: str) -> None:
    """Braces in it are text; it reaches no other step."""
    script = by_agent({"critic": lambda _: Reply(rewritten)}, echo)
    job, played = chained({"refine": {"max_chars": 50}}, {"template": "end {s0} {input}"}, script=script)
    assert played.text == f"<end <{asked}> in>"
    crashes_alike(CHAIN, job, played, team=TEAM)


def test_a_limit_at_the_refinement_ends_the_chain() -> None:
    limit = Failure(kind=FailureKind.LIMIT, message="no", limit="calls")
    _, played = chained({"refine": {}}, script=by_agent({"critic": lambda _: Reply(limit)}, echo))
    assert played.failure == limit


def test_each_step_may_have_its_own_agent_and_model() -> None:
    _, played = chained({"agent": "research", "model": "big"}, {"template": "{s0}"}, script=echo)
    assert [(request.agent, request.model) for request in played.asked] == [("research", "big"), ("s1", "auto")]
    assert played.asked[0].messages[0].content == "You are research."


def test_only_a_last_step_alone_streams() -> None:
    last: dict[str, Any] = {"gate": {"not_empty": False, "repairs": 0}}
    assert [request.stream for request in chained({}, last, script=echo, stream=True)[1].asked] == [False, True]
    assert [request.stream for request in chained({}, last | {"beside": True}, script=echo, stream=True)[1].asked] == [False, False]


def test_a_step_may_name_a_declared_prompt_whose_variables_are_earlier_answers_and_own_values() -> None:
    """What is put in is text: neither braces nor a template in it are read again."""
    script = by_agent({"s0": lambda _: Reply("{{ tone }} {input}")}, echo)
    job, played = chained({}, {"prompt_ref": "told@live", "values": {"tone": "calm"}}, script=script)
    assert played.text == "<calm: {{ tone }} {input}>"
    crashes_alike(CHAIN, job, played, team=TEAM)


@pytest.mark.parametrize(
    ("steps", "kind", "message"),
    [
        ([{}, {"prompt_ref": "told@live"}], FailureKind.INVALID_JOB, "step s1: its prompt needs tone, which"),
        ([{"prompt_ref": "told@live", "values": {"tone": "x"}}], FailureKind.INVALID_JOB, "step s0: its prompt needs s0, which"),
        ([{}, {"prompt_ref": "told@live", "values": {"tone": "x"}}], FailureKind.TOO_LARGE, "step s1: its prompt would exceed"),
    ],
)
def test_a_declared_prompt_that_lacks_something_fails_its_job(steps: list[dict[str, Any]], kind: FailureKind, message: str) -> None:
    _, played = chained(*steps, script=lambda _: Reply("x" * 200_000))
    assert played.failure is not None
    assert (played.failure.kind, message in played.failure.message) == (kind, True)


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        ({"prompt_ref": "told", "template": "{input}"}, "a template or a prompt_ref"),
        ({}, "a template or a prompt_ref"),
        ({"template": "{input}", "values": {"tone": "x"}}, "which only a prompt_ref takes"),
    ],
)
def test_a_step_has_a_template_or_a_declared_prompt(step: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidInput, match=wrong):
        CHAIN.read(Job(prompt="in", pattern="chain", input={"steps": [{"name": "s0", **step}]}))


def test_an_answer_by_reference_that_a_declared_prompt_reads_fails_its_job() -> None:
    large = Answer(blob=BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=70_000, written_at=0))
    _, played = chained({}, {"prompt_ref": "told@live", "values": {"tone": "x"}}, script=lambda _: Reply(large))
    assert played.failure is not None
    assert played.failure.kind is FailureKind.TOO_LARGE
