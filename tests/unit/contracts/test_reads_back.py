"""What is accepted reads back equal, however it came in; what JSON cannot say is refused, also nested."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from infra.schemas.messages import messages
from shared.contracts.base import JSON_DEPTH, JSON_WEIGHT, Contract
from shared.contracts.bounds import parse_job
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.job import Job
from shared.contracts.step import Step
from shared.errors import InvalidInput
from shared.patterns.chain import ChainStep
from tests.support.odd_values import deep, values

MESSAGES = [kind for _, kind in sorted(messages().items())]


def survives(found: BaseModel) -> None:
    """As a record: it can be written, and what is read is what was written."""
    assert isinstance(found, Contract)
    raw = found.to_bytes()
    assert type(found).model_validate_json(raw) == found


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_a_message_accepts_reads_back_equal(kind: type[Contract], data: st.DataObject) -> None:
    """As Python values (REST routes build messages so) and as JSON (records); refused is as good."""
    value = data.draw(values(kind))
    for read in (lambda: kind.model_validate(value), lambda: kind.model_validate_json(json.dumps(value))):
        try:
            found = read()
        except ValueError:
            continue
        survives(found)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(values(Job))
def test_whatever_a_job_may_be_it_reads_back_equal(body: dict[str, Any]) -> None:
    """Jobs come from everywhere; the sentence of one that is refused can be written too."""
    try:
        job = parse_job(json.dumps(body).encode())
    except InvalidInput as error:
        error.message.encode()
        return
    survives(job)


NOT_JSON = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b'"\\ud800"',
    b'{"\\udfff":1}',
    b"9" * 21,
    b"9" * 310,
    b"9" * 4_300,
    b"9" * 5_000,
]
PLACES = [
    b'{"prompt":"x","format":{"a":%b}}',
    b'{"prompt":"x","format":{"a":[{"b":[%b]}]}}',
    b'{"prompt":"x","tools":[{"a":{"b":%b}}]}',
    b'{"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":{"a":%b}}}]}]}',
    b'{"prompt":"x","pattern":"chain","chain":[{"name":"a","template":"x","format":{"a":%b}}]}',
]


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
@pytest.mark.parametrize("text", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_json_cannot_say_is_refused_wherever_it_stands(place: bytes, text: bytes) -> None:
    """Not a number, not finite, half a character, an integer beyond 64 bits: a reader elsewhere would see something else, or nothing."""
    assert parse_job(place % b"1")
    with pytest.raises(InvalidInput):
        parse_job(place % text)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**53 + 1, 0.1, 1e300, -0.0])
def test_what_64_bits_hold_is_kept_as_it_is(number: float) -> None:
    """The bounds of unsigned and signed integers stand in schemas."""
    job = parse_job(json.dumps({"prompt": "x", "format": {"maximum": number}}).encode())
    assert isinstance(job.format, dict)
    again = Job.model_validate_json(job.to_bytes())
    assert again == job
    assert repr(again.format) == repr({"maximum": number})


@pytest.mark.parametrize(
    "build",
    [
        lambda text: Job(prompt=text),
        lambda text: Job(prompt="x", system=text),
        lambda text: Job(texts=(text,)),
        lambda text: Job(prompt="x", metadata={text: "v"}),
        lambda text: Job(prompt="x", metadata={"k": text}),
        lambda text: Job(prompt="x", model=text),
        lambda text: Job(prompt="x", format={text: 1}),
        lambda text: Job(prompt="x", tools=({"a": [text]},)),
        lambda text: ChatMessage(role="user", content=text),
        lambda text: ChatMessage(role="user", tool_name=text),
        lambda text: ChainStep(name="a", template=text),
        lambda text: Answer(text=text),
        lambda text: Answer(thinking=text),
        lambda text: Step(job="j", id="s", home=0, agent=text),
    ],
)
def test_half_a_character_is_no_text(build: Any) -> None:
    """A lone surrogate (a command line, Python's own JSON reader) cannot be written in UTF-8."""
    with pytest.raises(ValidationError):
        build("a\ud800")


@pytest.mark.parametrize("value", [{"a": {1: 2}}, {"a": (1,)}, {"a": b"x"}, {"a": {1}}, {"a": 1j}, {"a": object()}])
def test_what_is_no_json_value_is_refused(value: dict[str, Any]) -> None:
    """It would be written as something else."""
    with pytest.raises(ValidationError):
        Job(prompt="x", format=value)


def test_free_json_is_bounded_in_depth_and_size() -> None:
    """Depth counts from the value: what lies around it in a message, a job, a schedule stays within what readers take."""
    assert Job(prompt="x", format=deep(JSON_DEPTH))
    for value in (deep(JSON_DEPTH + 1), deep(5_000), {"a": "x" * JSON_WEIGHT}, {"a": ["\u20ac" * 1_000] * 300}, {"a": [1] * JSON_WEIGHT}):
        with pytest.raises(ValidationError):
            Job(prompt="x", format=value)
