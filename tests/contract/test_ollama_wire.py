"""The simulator speaks Ollama's wire format: judged by the official Python client, and byte by byte where the client is tolerant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import ollama
import pytest
from jsonschema import Draft202012Validator

from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.parameters import Parameters
from tests.support.simulated_node import STEADY, chat, http_node, until

FAST = STEADY.with_(
    load_gb_per_second=1_000,
    cached_load_gb_per_second=1_000,
    decode_gb_per_second=5_000,
    prefill_gb_per_second=1e6,
    failures={"hang_seconds": 0.05},
)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@pytest.fixture
async def url_and_node() -> AsyncIterator[tuple[str, SimulatedOllama]]:
    async with http_node(FAST) as served:
        yield served


@pytest.fixture
def url(url_and_node: tuple[str, SimulatedOllama]) -> str:
    return url_and_node[0]


@pytest.fixture
def node(url_and_node: tuple[str, SimulatedOllama]) -> SimulatedOllama:
    return url_and_node[1]


@pytest.fixture
async def client(url: str) -> AsyncIterator[ollama.AsyncClient]:
    official = ollama.AsyncClient(url)
    yield official
    await official._client.aclose()


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=10) as plain:
        yield plain


async def test_the_official_client_reads_chat_streamed_and_whole(client: ollama.AsyncClient) -> None:
    """Both forms give the same text, counts and a done reason."""
    messages = [{"role": "user", "content": "hello"}]
    chunks = [chunk async for chunk in await client.chat("small", messages, stream=True)]
    whole = await client.chat("small", messages)
    assert "".join(chunk.message.content or "" for chunk in chunks) == whole.message.content
    assert (whole.done, whole.done_reason, whole.eval_count) == (True, "stop", 10)
    assert chunks[-1].eval_count == 10
    assert all(not chunk.done for chunk in chunks[:-1])
    assert whole.message.role == "assistant"
    assert (whole.total_duration or 0) >= (whole.eval_duration or 0) > 0


async def test_the_official_client_reads_generate(client: ollama.AsyncClient) -> None:
    """Streamed and whole, with and without thinking."""
    chunks = [chunk async for chunk in await client.generate("thinker", "hello", stream=True, think=True)]
    whole = await client.generate("thinker", "hello", think=True)
    assert "".join(chunk.response or "" for chunk in chunks) == whole.response
    assert "".join(chunk.thinking or "" for chunk in chunks) == whole.thinking
    assert whole.thinking


async def test_the_official_client_reads_schema_answers_and_tool_calls(client: ollama.AsyncClient) -> None:
    """`format` is obeyed; a tool call has name and arguments."""
    answer = await client.chat("small", [{"role": "user", "content": "who?"}], format=SCHEMA)
    Draft202012Validator(SCHEMA).validate(json.loads(answer.message.content or ""))
    tool = {"type": "function", "function": {"name": "find", "parameters": SCHEMA}}
    called = await client.chat("small", [{"role": "user", "content": "please find it"}], tools=[tool])
    (call,) = called.message.tool_calls or []
    assert call.function.name == "find"
    Draft202012Validator(SCHEMA).validate(dict(call.function.arguments))


async def test_the_official_client_reads_embeddings(client: ollama.AsyncClient) -> None:
    """One vector a text, of the model's dimensions or of those asked for."""
    answer = await client.embed("embedder", ["one", "two"])
    short = await client.embed("embedder", "one", dimensions=4)
    assert [len(vector) for vector in answer.embeddings] == [64, 64]
    assert [len(vector) for vector in short.embeddings] == [4]
    assert answer.prompt_eval_count == 2


async def test_the_official_client_reads_the_lists(client: ollama.AsyncClient) -> None:
    """tags shows all models, ps the loaded ones, show the capabilities and the context; none of them loads a model."""
    models = (await client.list()).models
    assert [model.model for model in models] == [f"{model.name}:latest" for model in FAST.models]
    shown = await client.show("thinker")
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert (shown.modelinfo or {})["llama.context_length"] == 32_768
    assert not (await client.ps()).models
    await client.generate("small", "", keep_alive="5m")
    (running,) = (await client.ps()).models
    assert (running.name, running.size, running.size_vram, running.context_length) == ("small:latest", 1_000_000_000, 1_000_000_000, 4_096)
    assert running.expires_at is not None


async def test_everything_says_that_it_is_simulated(http: httpx.AsyncClient) -> None:
    """Version, header of every answer, details of every model."""
    assert "simulated" in (await http.get("/api/version")).json()["version"]
    assert all(model["details"]["simulated"] for model in (await http.get("/api/tags")).json()["models"])
    for answer in (await http.get("/"), await http.post("/api/chat", json=chat()), await http.post("/api/chat", json={})):
        assert answer.headers["x-simulated"] == "ollama"


async def test_a_stream_line_by_line(http: httpx.AsyncClient) -> None:
    """NDJSON; exactly Ollama's fields in every chunk and in the final; cached tokens are told even when there are none."""
    answer = await http.post("/api/chat", json=chat(options={"num_predict": 2}))
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [set(line) for line in lines[:-1]] == [{"model", "created_at", "message", "done"}] * 2
    final = {"model", "created_at", "message", "done", "done_reason", "total_duration", "load_duration", "prompt_eval_count"}
    assert set(lines[-1]) == final | {"prompt_eval_cached_count", "prompt_eval_duration", "eval_count", "eval_duration"}
    assert lines[-1]["done_reason"] == "length"
    again = (await http.post("/api/chat", json=chat(stream=False))).json()
    assert again["prompt_eval_cached_count"] > 0


async def test_preload_and_unload_have_no_counts(http: httpx.AsyncClient) -> None:
    """As measured on 0.34: counts are absent, the reasons are load and unload."""
    load = (await http.post("/api/chat", json={"model": "small", "messages": []})).json()
    unload = (await http.post("/api/generate", json={"model": "small", "keep_alive": 0})).json()
    assert (load["done_reason"], unload["done_reason"]) == ("load", "unload")
    assert not [name for name in (*load, *unload) if name.endswith(("count", "duration"))]


BAD: dict[str, tuple[str, Any, int, str]] = {
    "no body": ("chat", None, 400, "missing request body"),
    "not json": ("chat", "{", 400, "invalid character"),
    "not an object": ("chat", "[]", 400, "cannot unmarshal"),
    "no model": ("chat", {}, 400, "model is required"),
    "unknown model": ("chat", {"model": "nope"}, 404, "model 'nope' not found"),
    "unknown model, show": ("show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
    "messages": ("chat", {"model": "small", "messages": "hi"}, 400, "cannot unmarshal"),
    "prompt": ("generate", {"model": "small", "prompt": 5}, 400, "cannot unmarshal"),
    "option type": ("chat", {"model": "small", "options": {"temperature": "hot"}}, 500, 'option "temperature" must be of type float32'),
    "option boolean": ("chat", {"model": "small", "options": {"num_ctx": True}}, 500, 'option "num_ctx" must be of type integer'),
    "format": ("chat", chat(format="xml"), 500, "invalid format"),
    "schema": ("chat", chat(format={"type": "nonsense"}), 400, "JSON schema conversion failed"),
    "keep alive": ("chat", chat(keep_alive="soon"), 400, "invalid duration"),
    "keep alive unit": ("chat", chat(keep_alive="5"), 400, "missing unit"),
    "chat of an embedder": ("chat", chat("embedder"), 400, "does not support chat"),
    "embedding of a chat model": ("embed", {"model": "small", "input": "x"}, 501, "does not support embeddings"),
    "thinking": ("chat", chat(think=True), 400, "does not support thinking"),
    "not simulated": ("push", {"model": "small"}, 501, "not simulated"),
}


@pytest.mark.parametrize("name", BAD)
async def test_errors_have_ollamas_status_and_shape(http: httpx.AsyncClient, name: str) -> None:
    """`{"error": text}` with the status that 0.34 gives; the official client understands the same."""
    route, body, status, words = BAD[name]
    content = body if isinstance(body, str) else json.dumps(body) if body is not None else ""
    answer = await http.post(f"/api/{route}", content=content)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


async def test_the_official_client_raises_our_errors(client: ollama.AsyncClient) -> None:
    """Before the stream by status, in mid-stream by the error line."""
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as missing:
        await client.chat("nope", [{"role": "user", "content": "x"}])
    assert missing.value.status_code == 404


async def test_an_error_in_mid_stream_is_the_last_line_of_a_200(
    http: httpx.AsyncClient, node: SimulatedOllama, client: ollama.AsyncClient
) -> None:
    """Set through the control plane, seen by plain HTTP and by the official client."""
    await http.post("/control", json={"failures": {"triggers": [{"mode": "mid_stream_error"}], "fail_after_tokens": 2}})
    answer = await http.post("/api/chat", json=chat())
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.status_code == 200
    assert [set(line) for line in lines[2:]] == [{"error"}]
    with pytest.raises(ollama.ResponseError, match="mid-stream"):
        [chunk async for chunk in await client.chat("small", [{"role": "user", "content": "x"}], stream=True)]
    assert (await http.post("/api/chat", json=chat(stream=False))).status_code == 500
    assert node.truth.failures["mid_stream_error"] == 3


@pytest.mark.parametrize("mode", ["disconnect", "hang"])
async def test_a_dropped_connection_is_seen_as_one(http: httpx.AsyncClient, mode: str) -> None:
    """Neither a whole answer nor a regular end of the stream."""
    await http.post("/control", json={"failures": {"triggers": [{"mode": mode}], "hang_seconds": 0.01}})
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/api/chat", json=chat())
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/api/chat", json=chat(stream=False))


async def test_a_client_that_disconnects_frees_the_slot_at_the_next_token() -> None:
    """Two tokens a second of an endless answer: after the disconnect nothing is in flight, few tokens were for nobody."""
    endless = FAST.with_(decode_gb_per_second=50, answer_tokens=[10_000, 10_000])
    async with http_node(endless) as (url, node), httpx.AsyncClient(base_url=url) as http:
        async with http.stream("POST", "/api/chat", json=chat()) as stream:
            await anext(stream.aiter_lines())
            assert node.truth.in_flight == 1
        await until(lambda: node.truth.in_flight == 0)
        assert (node.truth.clients_gone, node.truth.tokens_for_nobody) == (1, 1)
        waiting = asyncio.create_task(http.post("/api/chat", json=chat(stream=False)))
        await until(lambda: node.truth.in_flight == 1)
        waiting.cancel()
        await until(lambda: node.truth.in_flight == 0)


async def test_the_control_plane_tells_the_truth(http: httpx.AsyncClient) -> None:
    """Requests, tokens and loads are counted; reset and restart act; a misspelt field is refused."""
    await http.post("/api/chat", json=chat())
    truth = (await http.get("/control")).json()["truth"]
    assert (truth["requests"], truth["loads"], truth["answer_tokens"], truth["in_flight"]) == ({"chat": 1}, 1, 10, 0)
    scripted = (await http.post("/control", json={"reset": True, "scripts": [{"contains": "hi", "answer": "ho"}]})).json()
    assert (scripted["truth"]["requests"], scripted["scripts"]) == ({}, 1)
    assert (await http.post("/api/chat", json=chat(stream=False))).json()["message"]["content"] == "ho"
    assert (await http.post("/control", json={"restart": True})).json()["runners"] == []
    assert (await http.post("/control", json={"failure": {}})).status_code == 400


def test_parameters_say_what_is_wrong_with_them() -> None:
    """A chance above one, an unknown name and a broken pattern are refused."""
    for wrong in ({"failures": {"chances": {"hang": 2}}}, {"vram": 5}, {"scripts": [{"pattern": "(", "answer": ""}]}):
        with pytest.raises(ValueError, match="validation error"):
            Parameters.model_validate(wrong)
