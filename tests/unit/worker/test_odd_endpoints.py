"""Whatever an endpoint says, a worker goes on: a call fails with a kind, an entry of a list is left out, a message can be written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.worker.backends import http
from services.worker.backends.base import Backend, Completion, ModelCall, ModelCallFailed
from services.worker.backends.batching import BatchingBackend
from services.worker.backends.foreign import MOST_CHARACTERS, guarded
from services.worker.backends.ollama import OllamaBackend
from services.worker.backends.openai import OpenAIBackend
from services.worker.registration import MODELS_BYTES, Registration
from services.worker.settings import WorkerSettings
from services.worker.speeds import FASTEST, Speeds
from services.worker.wiring import WorkerContext
from shared.clock import LoopClock, ManualClock
from shared.contracts.base import RECORD_BYTES, StepId
from shared.contracts.chat import ChatMessage, Operation
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import Node, NodeModel
from shared.contracts.outcome import StepSucceeded
from shared.contracts.step import Step
from shared.topics import Topics
from tests.support.odd_values import JSON
from tests.unit.worker.fake_endpoint import Reply, fake_endpoint

Values = st.SearchStrategy[Any]
TAG = {"name": "good:1b", "size": 1, "digest": "d", "details": {"quantization_level": "Q4"}}
SHOWN = {"capabilities": ["completion", "tools"], "model_info": {"general.architecture": "a", "a.context_length": 2048}}
LISTED = {"id": "good:1b", "object": "model", "owned_by": "llamacpp", "meta": {"n_ctx_train": 2048, "size": 1}}
PROPS = {"default_generation_settings": {"n_ctx": 512}, "modalities": {"vision": False}}
LINE = {
    "message": {"role": "assistant", "content": "a", "thinking": "t", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
}
DONE = {"done": True, "done_reason": "stop", "eval_count": 9, "eval_duration": 9, "prompt_eval_count": 9, "prompt_eval_duration": 9}
DELTA = {"choices": [{"delta": {"content": "a", "reasoning_content": "t", "tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]}
STOP = {
    "choices": [{"delta": {}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 9},
    "timings": {"predicted_ms": 1},
}
VECTORS = {"embeddings": [[0.5], [1]], "prompt_eval_count": 3, "load_duration": 4, "total_duration": 5}
ROWS = {"data": [{"index": 1, "embedding": [1]}, {"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 3}}


def odd(value: Any) -> Values:
    """The value with any part of it replaced or left out."""
    if isinstance(value, dict):
        inner: Values = st.fixed_dictionaries({}, optional={name: odd(part) for name, part in value.items()})
    elif isinstance(value, list):
        inner = st.tuples(*map(odd, value)).map(list) | st.lists(odd(value[0]), max_size=3)
    else:
        return st.just(value) | JSON
    return st.one_of(st.just(value), inner, inner, inner, JSON)


class Body:
    """The content of a response, in two reads."""

    def __init__(self, data: bytes) -> None:
        middle = len(data) // 2
        self._parts = iter([part for part in (data[:middle], data[middle:]) if part])

    async def read(self) -> bytes:
        return next(self._parts, b"")


class OddEndpoint:
    """Answers GETs and short POSTs with the objects it is given, calls with the bytes."""

    def __init__(self, answers: dict[str, Any], body: bytes = b"") -> None:
        self._answers, self._body = answers, body

    async def get_json(self, path: str) -> tuple[dict[str, Any], dict[str, str]]:
        return self._answers[path], {"server": "s\udcff\n" * 90}

    async def post_json(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert json.dumps(body)
        return self._answers[path]

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any], trace: str | None) -> AsyncIterator[Body]:
        yield Body(self._body)


def ollama(answers: dict[str, Any], body: bytes = b"") -> Backend:
    endpoint: Any = OddEndpoint(answers, body)
    return OllamaBackend(WorkerSettings(), endpoint)


def openai(answers: dict[str, Any], body: bytes = b"") -> Backend:
    endpoint: Any = OddEndpoint(answers, body)
    return OpenAIBackend(WorkerSettings(backend="openai"), ManualClock(), endpoint)


def registration(backend: Backend, *models: str) -> Registration:
    here = WorkerContext(WorkerSettings(models=models), Topics(), ManualClock(), "n", "b", ["chat"])
    return Registration(here, backend, Speeds())


def registers(backend: Backend) -> Registration:
    """After a probe; the Node record can be written and read."""
    found = registration(backend)
    asyncio.run(found.refresh())
    node = found.record(0, draining=False)
    assert Node.model_validate_json(node.to_bytes()) == node
    return found


@pytest.mark.parametrize(
    ("named", "offered"),
    [((), ["small:latest", "big:7b"]), (("small",), ["small:latest"]), (("big:7b", "none"), ["big:7b"]), (("big",), []), (("none",), [])],
)
def test_a_worker_offers_what_its_settings_name_however_they_spell_it(named: tuple[str, ...], offered: list[str]) -> None:
    tags = {"models": [{**TAG, "name": "small:latest"}, {**TAG, "name": "big:7b"}]}
    found = registration(
        ollama({"/api/version": {"version": "1"}, "/api/tags": tags, "/api/ps": {"models": []}, "/api/show": SHOWN}), *named
    )
    asyncio.run(found.refresh())
    assert sorted(model.name for model in found.models) == sorted(offered)


THOROUGH = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@THOROUGH
@given(odd({"version": "1"}), odd({"models": [TAG]}), odd({"models": [{"name": "good:1b", "context_length": 512}]}), odd(SHOWN))
def test_any_ollama_can_be_probed(version: Any, tags: Any, resident: Any, shown: Any) -> None:
    """Unreachable or listed, in part or whole: never an exception, which would end the worker and each new one."""
    registers(ollama({"/api/version": version, "/api/tags": tags, "/api/ps": resident, "/api/show": shown}))


@THOROUGH
@given(odd({"data": [LISTED]}), odd(PROPS))
def test_any_openai_server_can_be_probed(listed: Any, props: Any) -> None:
    """The same for llama.cpp, vLLM, and whatever stands behind a proxy."""
    registers(openai({"/v1/models": listed, "/props": props}))


@THOROUGH
@given(st.lists(JSON | odd(TAG), max_size=3), st.lists(JSON | odd(LISTED), max_size=3))
def test_an_odd_entry_hides_no_other(tags: list[Any], listed: list[Any]) -> None:
    """The good one is on offer, wherever it stands."""
    base = {"/api/version": {"version": "1"}, "/api/ps": {"models": []}, "/api/show": SHOWN, "/props": PROPS}
    for backend in (
        ollama({**base, "/api/tags": {"models": [*tags, TAG]}}),
        openai({**base, "/v1/models": {"data": [*listed, LISTED]}}),
    ):
        found = registers(backend)
        assert found.reachable
        assert "good:1b" in [model.name for model in found.models]


NAMES = ["/models/llama.Q4_K_M.gguf", "../models/7B/ggml-model.gguf", "C:\\models\\x.gguf", "my model", "x" * 200]
UNSPEAKABLE = ["", "x" * 201, "a\nb", " a", "a\u202eb", None, 5]


@pytest.mark.parametrize("name", [*NAMES, *UNSPEAKABLE], ids=repr)
def test_a_name_that_no_message_can_say_is_left_out(name: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Others are offered as their server spells them: what a router writes, the worker can read. What is left out is said once."""
    base = {"/api/version": {"version": "1"}, "/api/ps": {"models": []}, "/api/show": SHOWN, "/props": PROPS}
    for backend in (
        ollama({**base, "/api/tags": {"models": [TAG, {**TAG, "name": name}]}}),
        openai({**base, "/v1/models": {"data": [LISTED, {**LISTED, "id": name}]}}),
    ):
        caplog.clear()
        found = registers(backend)
        asyncio.run(found.refresh())
        offered = [model.name for model in found.models]
        assert sorted(offered, key=str) == sorted(["good:1b", *([name] if name in NAMES else [])])
        assert [record.message for record in caplog.records].count("model_left_out") == (name in UNSPEAKABLE)


def test_a_long_list_fits_a_record() -> None:
    """Names of 193 characters of four bytes: what does not fit is left out, or the node could never register."""
    tags = [{**TAG, "name": f"{number:03}" + "\U0002a6a5" * 190} for number in range(256)]
    base = {"/api/version": {"version": "1"}, "/api/ps": {"models": []}, "/api/show": SHOWN}
    found = registers(ollama({**base, "/api/tags": {"models": [*tags, *tags]}}))
    assert 100 < len(found.models) < 256
    assert MODELS_BYTES / 2 < len(found.record(0, draining=False).to_bytes()) < RECORD_BYTES


def step(operation: Operation) -> Step:
    """Two texts, or a question."""
    texts = ("a", "b") if operation is Operation.EMBED else ()
    messages = () if texts else (ChatMessage(role="user", content="q"),)
    return Step(job="j", id=StepId("0" * 32), home=0, operation=operation, texts=texts, messages=messages, prompt="p")


async def asked(backend: Backend, operation: Operation) -> Completion | K:
    """What came of a call; its outcome can be written, and its speeds too."""
    try:
        async for piece in guarded(backend).call(ModelCall(step(operation), "m")):
            if isinstance(piece, Completion):
                outcome = StepSucceeded(job="j", step=StepId("s"), attempt=1, answer=piece.answer, usage=piece.usage, timings=piece.timings)
                assert StepSucceeded.model_validate_json(outcome.to_bytes()) == outcome
                speeds = Speeds()
                speeds.observe("m", piece, 4)
                model = speeds.attach(NodeModel(name="m"))
                assert NodeModel.model_validate_json(model.to_bytes()) == model
                assert 0 <= speeds.node_decode <= FASTEST
                return piece
    except ModelCallFailed as error:
        return error.kind
    raise AssertionError("a call ends with a completion or a failure")


def lines(values: list[Any], prefix: bytes = b"") -> bytes:
    return b"\n".join(prefix + json.dumps(value).encode() for value in values) + b"\n"


@THOROUGH
@given(st.lists(odd(LINE), max_size=3), odd(DONE), st.sampled_from([Operation.CHAT, Operation.GENERATE]))
def test_any_stream_of_an_ollama_is_an_answer_or_a_failure(pieces: list[Any], done: Any, operation: Operation) -> None:
    """NaN, a text that is a list, a count below nothing, a tool without a function."""
    asyncio.run(asked(ollama({}, lines([*pieces, done])), operation))


@THOROUGH
@given(st.lists(odd(DELTA), max_size=3), odd(STOP), st.sampled_from([Operation.CHAT, Operation.GENERATE]))
def test_any_stream_of_an_openai_server_is_an_answer_or_a_failure(pieces: list[Any], stop: Any, operation: Operation) -> None:
    """The same as server-sent events."""
    asyncio.run(asked(openai({}, lines([*pieces, stop], b"data: ") + b"data: [DONE]\n"), operation))


@THOROUGH
@given(odd(VECTORS), odd(ROWS))
def test_any_embedding_is_an_answer_or_a_failure(vectors: Any, rows: Any) -> None:
    """Also where several steps share the call."""
    asyncio.run(asked(ollama({}, json.dumps(vectors).encode()), Operation.EMBED))
    asyncio.run(asked(openai({}, json.dumps(rows).encode()), Operation.EMBED))

    async def shared() -> list[Completion | K]:
        batching = BatchingBackend(guarded(openai({}, json.dumps(rows).encode())), LoopClock(), delay_seconds=0.0, most_texts=9)
        return await asyncio.gather(*(asked(batching, Operation.EMBED) for _ in range(2)))

    asyncio.run(shared())


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_failure(data: bytes) -> None:
    """Not JSON at all."""
    for backend in (ollama({}, data), openai({}, data), openai({}, b"data: " + data + b"\ndata: [DONE]\n")):
        for operation in Operation:
            asyncio.run(asked(backend, operation))


def test_a_good_answer_is_read() -> None:
    """Or the properties above would hold for a reader that refuses everything."""
    for backend in (ollama({}, lines([LINE, DONE])), openai({}, lines([DELTA, STOP], b"data: "))):
        done = asyncio.run(asked(backend, Operation.CHAT))
        assert isinstance(done, Completion)
        assert (done.answer.text, done.answer.thinking, len(done.answer.tool_calls)) == ("a", "t", 1)
        assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (9, 9)
    for backend in (ollama({}, json.dumps(VECTORS).encode()), openai({}, json.dumps(ROWS).encode())):
        done = asyncio.run(asked(backend, Operation.EMBED))
        assert isinstance(done, Completion)
        assert done.answer.embeddings == ((0.5,), (1.0,))


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity", "9" * 400])
def test_tool_arguments_that_json_cannot_say_are_a_failure(number: str) -> None:
    """They would reach the caller as the text of something that his JSON reader refuses."""
    line = b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"x":%b}}}]},"done":true}\n' % number.encode()
    assert isinstance(asyncio.run(asked(ollama({}, line), Operation.CHAT)), K)


def endless(line: bytes) -> Iterator[bytes]:
    while True:
        yield line


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (ollama, lines([{"message": {"role": "assistant", "content": "x" * 1_000_000}}])),
        (ollama, lines([{"message": {"role": "assistant", "thinking": "x" * 1_000_000}}])),
        (openai, lines([{"choices": [{"delta": {"content": "x" * 1_000_000}}]}], b"data: ")),
        (openai, lines([{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "x" * 1_000_000}}]}}]}], b"data: ")),
        (ollama, lines([{"message": {"tool_calls": [{"function": {"name": "f"}}] * 100}}])),
    ],
)
def test_an_endless_answer_is_cut_off(make: Any, line: bytes) -> None:
    """An endpoint that never ends costs a call, and no more memory than an answer may have."""
    read = 0

    parts = endless(line)

    async def more(_: Body) -> bytes:
        nonlocal read
        data = next(parts)
        read += len(data)
        return data

    backend = make({})
    body = type("Endless", (Body,), {"read": more})(b"")

    @asynccontextmanager
    async def post(*_: Any) -> AsyncIterator[Body]:
        yield body

    backend._endpoint.post = post
    assert asyncio.run(asked(backend, Operation.CHAT)) is K.INVALID_OUTPUT
    assert read < 3 * MOST_CHARACTERS


@pytest.mark.parametrize("path", ["/api/version", "/api/tags"])
async def test_an_answer_is_bounded_where_it_arrives(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list, a page of HTML, a packed body that nobody asked for: read up to the bound, then the connection is closed."""
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 10_000)
    async with fake_endpoint() as fake:
        fake.replies["/api/version"] = Reply((b'{"version":"1"}',))
        fake.replies["/api/ps"] = Reply((b'{"models":[]}',))
        fake.replies["/api/tags"] = Reply((b'{"models":[]}',))
        fake.replies[path] = Reply((b'{"a":"',) + (b"x" * 1_000,) * 1_000, hangs=True)
        backend = OllamaBackend(WorkerSettings(url=fake.url))
        found = registration(backend)
        await found.refresh()
        assert not found.reachable
        await asyncio.wait_for(fake.left.wait(), 5)
        await backend.close()


class Broken:
    """A backend with a defect."""

    kind = "ollama"

    async def call(self, call: ModelCall) -> AsyncIterator[Any]:
        raise RuntimeError("secret words")
        yield  # type: ignore[unreachable]

    async def probe(self) -> Any:
        raise ZeroDivisionError

    models = probe

    async def close(self) -> None:
        return None


async def test_the_guard_lets_nothing_else_out(caplog: pytest.LogCaptureFixture) -> None:
    """One guard for all backends: a defect is a failed call, said once a place, without the error's own text."""
    backend = guarded(Broken())
    assert guarded(backend) is backend
    for _ in range(3):
        assert await asked(backend, Operation.CHAT) is K.MODEL_ERROR
    for method in (backend.probe, backend.models):
        with pytest.raises(ModelCallFailed):
            await method()
    assert [record.message for record in caplog.records].count("endpoint_not_understood") == 3
    assert "secret" not in caplog.text
