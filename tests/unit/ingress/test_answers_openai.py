"""The OpenAI dialect outwards: shapes that OpenAI's clients read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.ingress.dialects.openai import responses as answers
from services.ingress.dialects.openai.responses import ChunkWriter
from services.ingress.dialects.port import Told, origin, origin_headers
from services.ingress.problems import STATUS_OF_FAILURE, Problem, of_error, of_result, rendered
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.result import Result, Status
from shared.contracts.usage import Usage
from shared.contracts.verdict import Flagged
from shared.errors import Conflict

USAGE = Usage(calls=1, prompt_tokens=3, completion_tokens=5, wasted_tokens=100)
CALL = {"function": {"name": "weather", "arguments": {"city": "Köln"}}}


def parsed(stream: bytes) -> list[Any]:
    found = []
    for block in stream.decode().split("\n\n"):
        if block.startswith("data: "):
            body = block.removeprefix("data: ")
            found.append(body if body == "[DONE]" else json.loads(body))
    return found


def test_a_completion() -> None:
    """Text, usage and identity; what retries wasted is not billed to the caller."""
    body = json.loads(answers.completion(Told("j_1", 12, "asked", False), Answer(text="hi \u2028", model="used"), USAGE))
    assert body["id"] == "chatcmpl-j_1"
    assert (body["object"], body["created"], body["model"], body["system_fingerprint"]) == ("chat.completion", 12, "used", None)
    assert body["choices"][0]["message"]["content"] == "hi \u2028"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


SIGNED = Answer(text="hi", model="m:1", digest="sha256:ab", quantisation="Q4_K_M", node="node-1")
ORIGIN = {"model": "m:1", "digest": "sha256:ab", "quantisation": "Q4_K_M", "node": "node-1"}


def test_an_answer_says_what_has_answered() -> None:
    """Model, file and node: plain and at the end of a stream, and as headers that no name can break."""
    assert json.loads(answers.completion(Told("j_1", 12, "asked", False), SIGNED, USAGE))["tutti"] == ORIGIN
    writer = ChunkWriter(Told("j_1", 12, "asked", True))
    chunks = parsed(writer.begin("m:1", simulated=False) + writer.text("hi") + writer.last(SIGNED, USAGE))
    assert [chunk["tutti"] for chunk in chunks if "tutti" in chunk] == [ORIGIN]
    assert dict(origin_headers(SIGNED)) == {f"x-tutti-{name}".encode(): value.encode() for name, value in ORIGIN.items()}
    assert origin_headers(Answer(model="модель/é:1b")) == [(b"x-tutti-model", b"??????/?:1b")]


def test_a_simulated_answer_says_so() -> None:
    """Wherever an answer is shown, a simulation is named."""
    assert (
        json.loads(answers.completion(Told("j", 0, "m", False), Answer(text="x", simulated=True), USAGE))["system_fingerprint"]
        == "simulated"
    )


def test_tool_calls_are_in_openai_form() -> None:
    """An id is made up, arguments become JSON text, content is null when there is no text."""
    choice = json.loads(answers.completion(Told("j_1", 0, "m", False), Answer(tool_calls=(CALL,)), USAGE))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    call = choice["message"]["tool_calls"][0]
    assert (call["id"], call["type"], call["function"]["name"]) == ("call_j_1_0", "function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Köln"}


@pytest.mark.parametrize(
    ("reason", "word"), [(FinishReason.STOP, "stop"), (FinishReason.LENGTH, "length"), (FinishReason.BUDGET, "length")]
)
def test_finish_reasons(reason: FinishReason, word: str) -> None:
    """A budget is a length limit to this dialect."""
    assert answers.finish_reason(Answer(finish_reason=reason)) == word


def test_a_stream() -> None:
    """Role first, then text, then the finish reason, then the usage, then the end mark; one id throughout."""
    writer = ChunkWriter(Told("j_1", 12, "asked", True))
    stream = parsed(
        writer.begin("used", simulated=True)
        + writer.text('a "quoted"\nline')
        + writer.thinking("hm")
        + writer.last(Answer(text="..."), USAGE)
    )
    assert stream[-1] == "[DONE]"
    chunks = stream[:-1]
    assert {c["id"] for c in chunks} == {"chatcmpl-j_1"}
    assert [c["object"] for c in chunks] == ["chat.completion.chunk"] * 5
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[1]["choices"][0]["delta"] == {"content": 'a "quoted"\nline'}
    assert {(c["model"], c["system_fingerprint"]) for c in chunks} == {("used", "simulated")}
    assert chunks[2]["choices"][0]["delta"] == {"reasoning_content": "hm"}
    assert chunks[3]["choices"][0]["finish_reason"] == "stop"
    assert [c["usage"] for c in chunks] == [None, None, None, None, {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}]
    assert chunks[4]["choices"] == []


def test_without_include_usage_there_is_none() -> None:
    """Clients that did not ask get no usage field."""
    writer = ChunkWriter(Told("j_1", 12, "m", False))
    chunks = parsed(writer.begin("m", simulated=False) + writer.last(Answer(text="x"), USAGE))[:-1]
    assert all("usage" not in chunk for chunk in chunks)


def test_streamed_tool_calls_have_an_index() -> None:
    """As OpenAI's clients need it to put the pieces together."""
    writer = ChunkWriter(Told("j_1", 12, "m", False))
    chunks = parsed(writer.last(Answer(tool_calls=(CALL, CALL)), USAGE))
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [call["index"] for call in chunks[1]["choices"][0]["delta"]["tool_calls"]] == [0, 1]


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (429, "rate_limit_error"), (503, "server_error")])
def test_errors_have_openais_shape(status: int, kind: str) -> None:
    """message, type, param, code; typed details beside them."""
    error = json.loads(rendered(Problem(status, "some_code", "why", "model", details={"missing": ["gpu"]})))["error"]
    assert error == {"message": "why", "type": kind, "param": "model", "code": "some_code", "missing": ["gpu"]}


def test_a_conflict_is_not_tried_again() -> None:
    """OpenAI's clients take 409 for a passing state; an id that stands for another body stays one."""
    refused = Result(
        job="j", status=Status.FAILED, failure=Failure(kind=FailureKind.CONFLICT, message="used"), accepted_at=0, finished_at=0
    )
    for problem in (of_error(Conflict()), of_result(refused)):
        assert (problem.status, problem.headers) == (409, ((b"x-should-retry", b"false"),))


def test_every_kind_of_failure_has_a_status() -> None:
    """No failure becomes an accidental 500."""
    assert set(STATUS_OF_FAILURE) == set(FailureKind)


@pytest.mark.parametrize(
    ("status", "failure", "expected"),
    [
        (Status.FAILED, Failure(kind=FailureKind.NO_NODE, message="no node", missing=("8 GB VRAM",)), (503, "no_node")),
        (Status.FAILED, Failure(kind=FailureKind.UNKNOWN_MODEL, message="none"), (404, "unknown_model")),
        (Status.EXPIRED, None, (504, "deadline")),
        (Status.EXPIRED, Failure(kind=FailureKind.DEADLINE, message="late"), (504, "deadline")),
        (Status.CANCELLED, None, (499, "cancelled")),
        (Status.FAILED, Failure(kind=FailureKind.LIMIT, message="of an older planner"), (400, "limit")),
        (Status.FAILED, Failure(kind=FailureKind.LIMIT, message="spent", limit="tenant.cost"), (429, "insufficient_quota")),
        (Status.FAILED, Failure(kind=FailureKind.LIMIT, message="many", limit="tenant.steps"), (429, "rate_limit_exceeded")),
        (Status.FAILED, None, (500, "internal")),
    ],
)
def test_results_without_an_answer(status: Status, failure: Failure | None, expected: tuple[int, str]) -> None:
    """503 says what is missing and when to come again."""
    problem = of_result(Result(job="j", status=status, failure=failure, accepted_at=0, finished_at=0))
    assert (problem.status, problem.code) == expected
    if failure is not None and failure.missing:
        assert problem.details == {"missing": ["8 GB VRAM"]}
        assert "8 GB VRAM" in problem.message
        assert problem.retry_after_seconds is not None


def test_what_policies_did_is_told_without_the_text() -> None:
    """In the answer's mark and in a header."""
    flagged = (
        Flagged(direction="input", check="personal_data", action="redact", count=2),
        Flagged(direction="answer", check="support", action="flag"),
    )
    answer = Answer(text="a", flagged=flagged)
    assert origin(answer)["flagged"] == "input personal_data redact 2, answer support flag 1"
    assert (b"x-tutti-flagged", b"input personal_data redact 2, answer support flag 1") in origin_headers(answer)
