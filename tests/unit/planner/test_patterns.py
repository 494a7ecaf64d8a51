"""The patterns: what single and chain ask for, and with what they end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.blob import BlobRef
from shared.contracts.chat import Answer, ChatMessage, Operation
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.errors import InvalidInput
from shared.patterns import BUILT_IN
from shared.patterns.chain import CHAIN, MOST_CHARACTERS, Gate, gate_reason, names_in, render, rendered_length
from shared.patterns.run import Run
from shared.patterns.single import SINGLE, request_of

Respond = Callable[[StepRequest], str | Answer]
LARGE = Answer(blob=BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=70_000, written_at=0))


def played(job: Job, respond: Respond) -> tuple[Run, list[StepRequest]]:
    """The chain, run to its end with scripted answers, and what it asked for."""
    run = Run("j_1", CHAIN, job)
    run.start()
    asked: list[StepRequest] = []
    while not run.finished:
        [wanted] = run.wanted()
        assert wanted.request is not None
        run.record(wanted.step)
        asked.append(wanted.request)
        answer = respond(wanted.request)
        run.resume(wanted.step, Answer(text=answer) if isinstance(answer, str) else answer)
    return run, asked


def said(request: StepRequest) -> str:
    """The user's message of a request."""
    return request.messages[-1].content


def chain(*steps: dict[str, Any], **job: Any) -> Job:
    named = [{"name": f"s{number}", **step} for number, step in enumerate(steps)]
    return Job.model_validate({"prompt": "in", "pattern": "chain", "chain": named, **job})


def step_with_gate(**gate: Any) -> dict[str, Any]:
    return {"template": "{input}", "gate": gate}


@pytest.mark.parametrize(
    ("steps", "read"),
    [
        (({},), False),
        (({}, {"template": "no name"}), False),
        (({"gate": {"not_empty": False, "repairs": 0}},), False),
        (({}, {"template": "{s0}"}), True),
        (({}, {"template": "no name"}, {"template": "{s0}"}), True),
        (({"gate": {"min_chars": 1}},), True),
        (({"gate": {"max_chars": 1}},), True),
        (({"gate": {"contains": "x"}},), True),
        (({"gate": {"json_object": True}},), True),
    ],
)
def test_an_answer_by_reference_is_good_where_nobody_reads_it(steps: tuple[dict[str, Any], ...], read: bool) -> None:
    """What it answers is then the chain's answer, or nobody's; else the chain ends, typed."""
    run, asked = played(chain(*({"template": "{input}", **step} for step in steps)), lambda _: LARGE)
    if read:
        assert run.failure is not None
        assert (run.failure.kind, len(asked)) == (FailureKind.TOO_LARGE, 1)
    else:
        assert (run.answer, len(asked)) == (LARGE, len(steps))


# Templates


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{input}", "IN"),
        ("a {input} b {first} c", "a IN b ONE c"),
        ("{{input}}", "{input}"),
        ("{{{input}}}", "{IN}"),
        ("lone { and } stay", "lone { and } stay"),
        ("{Not a name}", "{Not a name}"),
        ("{}", "{}"),
        ("{{}}", "{}"),
    ],
)
def test_render(template: str, rendered: str) -> None:
    """Names in braces are inputs, doubled braces are braces, anything else is text."""
    assert render(template, {"input": "IN", "first": "ONE"}) == rendered


@given(st.text(alphabet="{}inputa ", max_size=30))
def test_render_substitutes_once(answer: str) -> None:
    """Braces that come from an answer are text, whatever they spell."""
    assert render("<{input}>", {"input": answer, "a": "never"}) == f"<{answer}>"


@given(st.text(alphabet="{}inputa ", max_size=30), st.text(max_size=5))
def test_rendered_length_is_an_upper_bound(template: str, value: str) -> None:
    """So it can be checked before anything is rendered."""
    values = dict.fromkeys(names_in(template), value)
    assert len(render(template, values)) <= rendered_length(template, values)


def test_names() -> None:
    """What a template needs."""
    assert names_in("{a} {{b}} {c_1} {D} { e}") == {"a", "c_1"}


# Checks before the first call


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([{"template": "{input}"}, {"template": "{s0} {input}"}], None),
        ([{"template": "{s1}"}, {"template": "x"}], "step s0 names s1, which no earlier step makes"),
        ([{"template": "{s0}"}], "step s0 names s0, which no earlier step makes"),
        ([{"template": "{outer}"}], "step s0 names outer, which no earlier step makes"),
        ([{"template": "x"}, {"name": "s0", "template": "y"}], "the step name s0 is used twice"),
        ([{"name": "input", "template": "x"}], "the step name input is used twice"),
        ([], "`steps`"),
        ([{}], "step s0 needs a template or a prompt_ref"),
        ([{"template": "b", "gate": {"regex": "x"}}], r"unknown field `steps\[0\].gate.regex`"),
    ],
)
def test_check(steps: list[dict[str, Any]], problem: str | None) -> None:
    """Unknown names and doubled ones are refused before any call is made, however the steps are given."""
    for job in (chain(*steps), Job.model_validate({"prompt": "in", "pattern": "chain", "input": {"steps": list(chain(*steps).chain)}})):
        with nullcontext() if problem is None else pytest.raises(InvalidInput, match=problem):
            BUILT_IN.read(job)


# Composition


def test_each_step_sees_the_answers_before_it() -> None:
    """Composition with answers that echo their input; the last answer is the job's."""
    job = chain({"template": "A({input})"}, {"template": "B({s0})"}, {"template": "C({s0},{s1},{input})"})
    run, asked = played(job, lambda request: said(request).lower())
    assert [said(request) for request in asked] == ["A(in)", "B(a(in))", "C(a(in),b(a(in)),in)"]
    assert run.answer == Answer(text="c(a(in),b(a(in)),in)")


def test_the_input_is_the_prompt_or_the_last_user_message() -> None:
    """Of a conversation, what the user said last."""
    messages = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "last"}]
    _, asked = played(chain({"template": "{input}"}, prompt=None, messages=messages), lambda _: "ok")
    assert said(asked[0]) == "last"
    _, asked = played(chain({"template": "<{input}>"}, prompt=None, messages=messages[1:2]), lambda _: "ok")
    assert said(asked[0]) == "<>"


def test_a_step_overrides_what_the_job_says() -> None:
    """Model, system, options of the step win over the job's."""
    given = {"model": "small", "system": "job system", "options": {"temperature": 0.0}, "capability": "code"}
    job = chain({"template": "{input}"}, {"template": "{input}", "model": "big", "system": "own", "options": {"seed": 1}}, **given)
    _, [first, second] = played(job, lambda _: "ok")
    assert (first.model, first.messages[0].content, first.options.temperature) == ("small", "job system", 0.0)
    assert (second.model, second.messages[0].content, second.options.seed, second.options.temperature) == ("big", "own", 1, None)
    assert first.capability == second.capability == "code"


# Gates


@pytest.mark.parametrize(
    ("gate", "passing", "refused"),
    [
        ({}, "x", "  "),
        ({"not_empty": False}, "", None),
        ({"min_chars": 3}, "abc", "ab"),
        ({"max_chars": 3}, "abc", "abcd"),
        ({"contains": "yes"}, "oh yes", "no"),
        ({"json_object": True}, '{"a": 1}', "[1]"),
        ({"json_object": True}, "{}", "not json"),
        ({"json_object": True}, "{}", "[" * 100_000),
    ],
)
def test_gate(gate: dict[str, Any], passing: str, refused: str | None) -> None:
    """Each rule, on both sides."""
    assert gate_reason(Gate(**gate), passing) is None
    assert refused is None or gate_reason(Gate(**gate), refused) is not None


@pytest.mark.parametrize("repairs", [0, 1, 5])
def test_a_refused_answer_is_asked_for_again_as_often_as_said(repairs: int) -> None:
    """1 + repairs calls, then a typed failure; the model is told why, in a prompt that is new each time it differs."""
    run, asked = played(chain(step_with_gate(min_chars=9, repairs=repairs)), lambda _: "short")
    assert len(asked) == repairs + 1
    assert run.failure is not None
    assert run.failure.kind is FailureKind.GATE_FAILED
    assert [said(request) for request in asked[1:]] == [
        "in\n\nYour last answer was refused: the answer has fewer than 9 characters. Answer again."
    ] * repairs


def test_a_repaired_answer_goes_on() -> None:
    """The repair's text, not the refused one, is what later steps see."""
    answers = iter(["bad", "good", "end"])
    job = chain(step_with_gate(contains="good"), {"template": "{s0}!"})
    run, asked = played(job, lambda _: next(answers))
    assert said(asked[1]).endswith("the answer does not contain 'good'. Answer again.")
    assert said(asked[2]) == "good!"
    assert run.answer == Answer(text="end")


def test_a_failure_holds_none_of_the_jobs_text() -> None:
    """Failures end up in logs and metrics."""
    run, _ = played(chain(step_with_gate(contains="my secret")), lambda _: "the answer")
    assert run.failure is not None
    assert run.failure.message == "chain step s0: the answer does not contain the required text"


def test_a_prompt_that_would_be_too_long_is_never_built() -> None:
    """A few bytes of template can name a long answer thousands of times."""
    run, asked = played(chain({"template": "{input}"}, {"template": "{s0}" * 8_000}), lambda _: "x" * 100_000)
    assert len(asked) == 1
    assert run.failure is not None
    assert run.failure.kind is FailureKind.TOO_LARGE
    assert rendered_length("{s0}" * 2, {"s0": "x" * (MOST_CHARACTERS // 2)}) > MOST_CHARACTERS


# Streaming


def test_only_what_nothing_may_refuse_is_streamed() -> None:
    """The last step without gate and repairs; anything else might be refused after the caller has read it."""
    open_gate = {"template": "{input}", "gate": {"not_empty": False, "repairs": 0}}
    assert [r.stream for r in played(chain(open_gate, open_gate, stream=True), lambda _: "x")[1]] == [False, True]
    assert [r.stream for r in played(chain(open_gate, {"template": "{input}"}, stream=True), lambda _: "x")[1]] == [False, False]
    assert [r.stream for r in played(chain(open_gate, open_gate), lambda _: "x")[1]] == [False, False]


def test_the_best_answer_so_far_is_the_last_that_passed() -> None:
    """For when a limit ends the job half-way."""
    run = Run("j_1", CHAIN, chain({"template": "{input}"}, {"template": "{s0}"}))
    run.start()
    [wanted] = run.wanted()
    run.record(wanted.step)
    run.resume(wanted.step, Answer(text="half"))
    assert run.context.best_answer == Answer(text="half")


# Single


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"prompt": "p"}, {"operation": Operation.CHAT, "messages": (ChatMessage(role="user", content="p"),), "agent": "chat"}),
        ({"prompt": "p", "operation": "generate"}, {"operation": Operation.GENERATE, "prompt": "p", "messages": ()}),
        ({"texts": ["a", "b"]}, {"operation": Operation.EMBED, "texts": ("a", "b"), "capability": "embed", "agent": "embed"}),
        ({"texts": ["a"], "system": "s"}, {"messages": ()}),
        ({"prompt": "p", "capability": "code"}, {"capability": "code", "agent": "code"}),
        (
            {"prompt": "p", "system": "s"},
            {"messages": (ChatMessage(role="system", content="s"), ChatMessage(role="user", content="p"))},
        ),
    ],
)
def test_single_asks_for_what_the_job_says(job: dict[str, Any], expected: dict[str, Any]) -> None:
    """One step: the job's own input."""
    request = request_of(Job.model_validate(job))
    assert {name: getattr(request, name) for name in expected} == expected


def test_single_passes_everything_on_that_decides_the_answer() -> None:
    """A field that is lost here is lost for good."""
    job = Job.model_validate(
        {
            "prompt": "p",
            "model": "m:1b",
            "fallback_models": ["n:1b"],
            "options": {"temperature": 0.5},
            "format": "json",
            "tools": [{"type": "function"}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "stream": True,
            "needs": {"tags": ["gpu"]},
        }
    )
    request = request_of(job)
    for name in ("model", "fallback_models", "options", "format", "tools", "tool_choice", "parallel_tool_calls", "stream", "needs"):
        assert getattr(request, name) == getattr(job, name)


@pytest.mark.parametrize("name", sorted(BUILT_IN.current))
def test_a_callers_tools_are_handed_on_or_refused(name: str) -> None:
    """Never lost: only a pattern that hands the job on as it is takes them."""
    given = {"chain": {"steps": [{"name": "a", "template": "{input}"}]}}
    job = Job.model_validate({"prompt": "p", "pattern": name, "input": given.get(name, {}), "tools": [{"type": "function"}]})
    if name in ("single", "auto"):
        BUILT_IN.read(job)
        return
    with pytest.raises(InvalidInput, match=f"pattern {name} takes no tools"):
        BUILT_IN.read(job)


def test_every_pattern_can_be_found() -> None:
    """By name for new jobs, by version for jobs in flight."""
    assert {"single": SINGLE, "chain": CHAIN}.items() <= BUILT_IN.current.items()
    assert (BUILT_IN.of("single", 1), BUILT_IN.of("chain", 1), BUILT_IN.of("chain", 2)) == (SINGLE, CHAIN, None)
