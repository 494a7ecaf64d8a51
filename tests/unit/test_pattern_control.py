"""Constrained control: whatever a model writes, a pattern gets a valid decision or a typed failure, after a bounded number of asks."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from shared.contracts.chat import Answer, ChatMessage, FinishReason
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.patterns.context import Context, chat
from shared.patterns.control import AGAIN, ROOM, Control, decide, first_object, narrowed, read, schema_of
from shared.patterns.run import Run
from tests.unit.planner.driven import record_all, started


class Part(Control):
    n: int = Field(ge=0, le=9)


class Choice(Control):
    """Not for the sampler."""

    reasoning: str = Field(default="", max_length=50)
    speaker: str
    kind: Literal["a", "b"] = "a"
    parts: tuple[Part, ...] = Field(default=(), max_length=2)


NARROW = narrowed(Choice, "speaker", ("research", "critic"))


def asked(*answers: Answer) -> tuple[Run, list[StepRequest]]:
    """A run of one decision whose model answers so, and what it was asked."""

    async def body(ctx: Context) -> Answer:
        decided = await decide(
            ctx,
            chat(Job(prompt="q"), (ChatMessage(role="user", content="who?"),), agent="coordinator"),
            NARROW,
            lambda choice: "not twice" if len(choice.parts) > 1 else None,
        )
        return Answer(text=decided.speaker)

    run, requests = started(body), []
    for answer in answers:
        requests += [wanted.request for wanted in run.wanted() if wanted.request is not None]
        run.resume(record_all(run)[0], answer)
    return run, requests


def test_the_sampler_gets_a_schema_without_references_whose_fields_are_all_needed() -> None:
    schema = schema_of(NARROW)
    assert schema["properties"]["speaker"] == {"enum": ["research", "critic"], "type": "string"}
    assert schema["required"] == ["reasoning", "speaker", "kind", "parts"]
    assert schema["properties"]["parts"]["items"]["properties"]["n"] == {"maximum": 9, "minimum": 0, "type": "integer"}
    assert not any(word in str(schema) for word in ("$ref", "$defs", "title", "Not for the sampler"))


def test_a_field_of_several_is_narrowed_in_each() -> None:
    class Team(Control):
        members: tuple[str, ...] = Field(max_length=3)

    schema = schema_of(narrowed(Team, "members", ("a", "b")))["properties"]["members"]
    assert schema == {"type": "array", "items": {"enum": ["a", "b"], "type": "string"}, "maxItems": 3}


def test_a_field_of_what_a_list_holds_is_narrowed_and_the_list_bounded() -> None:
    class Node(Control):
        agent: str = Field(max_length=5)

    class Plan(Control):
        nodes: tuple[Node, ...] = Field(max_length=9)

    schema = schema_of(narrowed(Plan, "nodes.agent", ("a", "b"), 2))["properties"]["nodes"]
    assert (schema["minItems"], schema["maxItems"]) == (1, 2)
    assert schema["items"]["properties"]["agent"] == {"enum": ["a", "b"], "type": "string"}


@pytest.mark.parametrize(
    "text",
    [
        '{"speaker": "critic"}',
        '```json\n{"speaker": "critic"}\n```',
        '<think>{hm}</think> Sure! {"speaker": "critic", "extra": {"x": 1}} Hope this helps.',
    ],
)
def test_a_decision_is_found_in_what_is_written_around_it(text: str) -> None:
    run, requests = asked(Answer(text=text))
    assert run.answer == Answer(text="critic")
    assert [request.format for request in requests] == [schema_of(NARROW)]
    assert [request.options.max_tokens for request in requests] == [ROOM]


def test_what_is_none_is_asked_for_again_with_the_reason_and_more_room_where_it_was_cut_off() -> None:
    run, requests = asked(
        Answer(text='{"speaker": "nobody"}'),
        Answer(text='{"speaker": "cri', finish_reason=FinishReason.LENGTH),
        Answer(text='{"speaker": "critic"}'),
    )
    assert run.answer == Answer(text="critic")
    assert [request.options.max_tokens for request in requests] == [ROOM, ROOM, 2 * ROOM]
    assert [len(request.messages) for request in requests] == [1, 3, 3]
    assert "speaker" in requests[1].messages[-1].content
    assert "no JSON object" in requests[2].messages[-1].content


TWO_PARTS = '{"speaker": "critic", "parts": [{"n": 1}, {"n": 2}]}'
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner)
)


@pytest.mark.parametrize("text", ["", "no", "{", "[]", '{"speaker": "me"}', TWO_PARTS, "{" * 5_000])
def test_a_model_that_never_decides_is_a_typed_failure_after_few_asks(text: str) -> None:
    run, requests = asked(*[Answer(text=text)] * (AGAIN + 1))
    assert run.failure is not None
    assert run.failure.kind is FailureKind.INVALID_OUTPUT
    assert len(requests) == AGAIN + 1
    assert run.failure.message.startswith("agent coordinator made no valid decision: ")


@given(st.text(max_size=200) | VALUES.map(str))
def test_whatever_is_written_is_a_decision_or_a_reason(text: str) -> None:
    found, wrong = read(NARROW, text)
    assert (found is None) == bool(wrong)


def test_the_first_object_is_the_one_that_is_whole() -> None:
    whole: dict[str, Any] = {"a": {"b": [1]}}
    assert first_object('{"cut": {"x": 1 {"a": {"b": [1]}} {"later": 2}') in ({"x": 1}, whole)
    assert first_object('x {"a": {"b": [1]}} {"later": 2}') == whole
