"""The Ollama backend against scripted bytes: what is sent, how streams are read, what each failure means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_core import to_json

from services.worker.backends.base import ModelCall
from services.worker.backends.ollama import OllamaBackend, request
from services.worker.settings import WorkerSettings, ollama_url
from shared.contracts.chat import ChatMessage, FinishReason, Operation, Options
from tests.unit.worker.calling import TRACE, ask, failure_of
from tests.unit.worker.fake_endpoint import FakeEndpoint, Reply, fake_endpoint, serving
from tests.unit.worker.world import step

DONE = b'{"done":true,"done_reason":"stop","prompt_eval_count":7,"prompt_eval_cached_count":2,"eval_count":2,"eval_duration":2000000}'


@pytest.fixture
async def fake() -> AsyncIterator[FakeEndpoint]:
    async with fake_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def ollama(fake: FakeEndpoint) -> AsyncIterator[OllamaBackend]:
    backend = OllamaBackend(WorkerSettings(url=fake.url, profiles={"*": {"num_ctx": 4096}}))
    yield backend
    await backend.close()


@pytest.mark.parametrize("think", [None, False, True, "low", "high"])
@pytest.mark.parametrize("thinks", [True, False])
def test_the_wish_to_think_is_sent_to_models_that_can(think: Any, thinks: bool) -> None:
    """Ollama refuses it of others, and knows no option of that name."""
    body = request(ModelCall(step(1, options=Options(think=think)), "small", thinks=thinks), WorkerSettings())
    assert body.get("think") == (think if thinks else None)
    assert "think" not in body["options"]


async def test_a_chat_stream_becomes_deltas_and_one_completion(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """Text and thinking are concatenated, counts and nanosecond durations are the endpoint's own."""
    fake.ndjson(
        "/api/chat",
        b'{"message":{"role":"assistant","content":"","thinking":"hm"},"done":false}',
        b'{"message":{"role":"assistant","content":"Hel"},"done":false}',
        b'{"message":{"role":"assistant","content":"lo"},"done":false}',
        DONE,
    )
    deltas, completion = await ask(ollama)
    assert "".join(delta.text for delta in deltas) == completion.answer.text == "Hello"
    assert sum(delta.tokens for delta in deltas) == 3
    assert completion.answer.thinking == "hm"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.prefilled_tokens) == (7, 2, 5)
    assert completion.timings.decode_ms == 2.0


async def test_a_call_always_states_temperature_limit_keep_alive_and_profile(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """Endpoints differ in their defaults, so none is left to them; load-time options are the node's, the same on every call."""
    fake.ndjson("/api/chat", DONE)
    await ask(ollama, trace=TRACE)
    await ask(ollama, options=Options(temperature=0.0, max_tokens=5, stop=("x",), seed=1))
    (_, plain, headers), (_, chosen, _) = fake.asked
    assert plain["options"] == {"num_ctx": 4096, "temperature": 0.7, "num_predict": 1024}
    assert chosen["options"] == {"num_ctx": 4096, "temperature": 0.0, "num_predict": 5, "stop": ["x"], "seed": 1}
    assert (plain["stream"], plain["keep_alive"], plain["truncate"], plain["shift"]) == (True, "5m", False, False)
    assert headers["traceparent"] == TRACE


@pytest.mark.parametrize(
    ("usual", "warm"), [("5m", "5m"), ("90s", "5m"), ("0", "5m"), ("1h30m", "1h30m"), ("300500ms", "5m"), ("24h", "24h"), ("-1m", "-1m")]
)
async def test_what_is_warmed_stays_as_long_as_what_is_asked(fake: FakeEndpoint, usual: str, warm: str) -> None:
    """Five minutes at least; an operator's longer time stands."""
    fake.ndjson("/api/generate", DONE)
    backend = OllamaBackend(WorkerSettings(url=fake.url, keep_alive=usual))
    await backend.warm("small")
    await backend.close()
    assert fake.asked[-1][1]["keep_alive"] == warm


async def test_messages_are_sent_in_ollamas_form(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """Bare base64 images, tool arguments as objects, tool results with their names."""
    fake.ndjson("/api/chat", DONE)
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = (
        ChatMessage(role="user", content="look", images=("data:image/png;base64,AAAA", "BBBB")),
        ChatMessage(role="assistant", tool_calls=(call,)),
        ChatMessage(role="tool", content="2", tool_name="f", tool_call_id="c1"),
    )
    await ask(ollama, messages=messages, format={"type": "object"}, tools=({"type": "function"},))
    body = fake.asked[0][1]
    assert body["messages"][0]["images"] == ["AAAA", "BBBB"]
    assert body["messages"][1]["tool_calls"] == [{"function": {"name": "f", "arguments": {"a": 1}}}]
    assert body["messages"][2] == {"role": "tool", "content": "2", "tool_name": "f", "tool_call_id": "c1"}
    assert (body["format"], body["tools"]) == ({"type": "object"}, [{"type": "function"}])


async def test_tool_calls_of_an_answer_get_openais_form(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """An id derived from step and attempt, arguments as JSON text, finish reason tool_calls."""
    fake.ndjson("/api/chat", b'{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]}}', DONE)
    deltas, completion = await ask(ollama)
    [call] = completion.answer.tool_calls
    assert deltas[0].tool_calls == (call,)
    assert call["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert call["id"]
    assert completion.answer.finish_reason is FinishReason.TOOL_CALLS


async def test_generate_and_embed(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """The two other operations have paths and shapes of their own."""
    fake.ndjson("/api/generate", b'{"response":"yes"}', b'{"done":true,"done_reason":"length","eval_count":1}')
    fake.replies["/api/embed"] = Reply((b'{"embeddings":[[1.0,0.5],[0.0,1.0]],"prompt_eval_count":4}',))
    _, written = await ask(ollama, operation=Operation.GENERATE, prompt="p", messages=(ChatMessage(role="system", content="s"),))
    assert (written.answer.text, written.answer.finish_reason) == ("yes", FinishReason.LENGTH)
    assert (fake.asked[0][1]["prompt"], fake.asked[0][1]["system"]) == ("p", "s")
    _, embedded = await ask(ollama, operation=Operation.EMBED, texts=("a", "b"))
    assert embedded.answer.embeddings == ((1.0, 0.5), (0.0, 1.0))
    assert fake.asked[1][1]["input"] == ["a", "b"]
    assert embedded.usage.prompt_tokens == 4
    fake.replies["/api/embed"] = Reply((b'{"embeddings":[[1.0,0.5]]}',))
    assert (await failure_of(ollama, operation=Operation.EMBED, texts=("a", "b"))).kind == "model_error"


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "invalid format", "bad_request"),
        (400, "small does not support tools", "unsupported"),
        (400, "the input length exceeds the context length", "context_length"),
        (404, "model 'small' not found", "unknown_model"),
        (500, "runner process has terminated", "model_error"),
        (501, "this model does not support embeddings", "unsupported"),
        (502, "bad gateway", "model_error"),
        (503, "server busy, please try again. maximum pending requests exceeded", "overloaded"),
    ],
)
async def test_statuses_mean(fake: FakeEndpoint, ollama: OllamaBackend, status: int, message: str, kind: str) -> None:
    """Every error status has one kind, and the endpoint's own sentence is kept."""
    fake.replies["/api/chat"] = Reply((f'{{"error":"{message}"}}'.encode(),), status=status, headers={"Retry-After": "3"})
    failure = await failure_of(ollama)
    assert (failure.kind, failure.message, failure.retry_after_seconds) == (kind, message, 3.0)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply((b'{"message":{"content":"a"}}\n', b'{"error":"runner crashed"}\n')), "model_error"),
        (Reply((b'{"message":{"content":"a"}}\n',)), "broken_stream"),
        (Reply((b'{"message":{"content":"a"}}\n',), cut=True), "broken_stream"),
        (Reply((b"<html>\n",)), "broken_stream"),
        (Reply((b"[1]\n",)), "broken_stream"),
        (Reply((b'{"message":{"content":"a"},"remote_host":"https://elsewhere"}\n',)), "unsupported"),
    ],
)
async def test_a_stream_that_goes_wrong_after_200(fake: FakeEndpoint, ollama: OllamaBackend, reply: Reply, kind: str) -> None:
    """An error line, an end without `done`, a cut connection, no JSON, a forwarded answer: none of it is a success."""
    fake.replies["/api/chat"] = reply
    assert (await failure_of(ollama)).kind == kind


async def test_nobody_listens(fake: FakeEndpoint) -> None:
    """A refused connection is told apart from a failing model."""
    backend = OllamaBackend(WorkerSettings(url="http://127.0.0.1:9"))
    assert (await failure_of(backend)).kind == "node_unreachable"
    await backend.close()


async def test_cancelling_closes_the_connection_at_once(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """Law 9: the endpoint sees the end of the connection within 100 ms of the cancel."""
    fake.ndjson("/api/chat", b'{"message":{"content":"a"}}', hangs=True)
    began = asyncio.Event()

    async def consume() -> None:
        async for _ in ollama.call(ModelCall(step(1), "small")):
            began.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(began.wait(), 5)
    task.cancel()
    await asyncio.wait_for(fake.left.wait(), 0.1)
    await asyncio.gather(task, return_exceptions=True)


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    """A pooled connection may be dead when it is used: the call is made once more, on a new one, and succeeds."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while await reader.readuntil(b"}]}"):
            requests += 1
            if requests == 2:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(DONE), DONE))
            await writer.drain()

    async with serving(serve) as url:
        backend = OllamaBackend(WorkerSettings(url=url))
        await ask(backend)
        await ask(backend)
        assert requests == 3
        await backend.close()


async def test_lines_cut_anywhere_are_read_whole(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """Network reads do not respect lines, nor characters."""
    whole = '{"message":{"content":"grün "}}\n{"message":{"content":"€"}}\n'.encode() + DONE
    fake.replies["/api/chat"] = Reply(tuple(whole[i : i + 7] for i in range(0, len(whole), 7)))
    _, completion = await ask(ollama)
    assert completion.answer.text == "grün €"


async def test_models_are_found_without_loading_any(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """tags, ps, and show once a digest: context length and operations; a forwarded model is not offered."""
    fake.replies["/api/tags"] = Reply(
        (
            b'{"models":[{"name":"small:latest","digest":"d1","size":5},{"name":"vec:latest","digest":"d2"},',
            b'{"name":"cloudy","digest":"d3","remote_host":"https://elsewhere"}]}',
        )
    )
    fake.replies["/api/ps"] = Reply((b'{"models":[{"name":"small:latest","size":900,"size_vram":700}]}',))
    fake.replies["/api/version"] = Reply((b'{"version":"0.34.0-simulated"}',))
    fake.replies["/api/show"] = Reply(
        (b'{"capabilities":["completion","embedding"],"model_info":{"general.architecture":"llama","llama.context_length":8192}}',)
    )
    models = await ollama.models()
    again = await ollama.models()
    assert models == again
    assert [(m.name, m.resident, m.context_length) for m in models] == [("small:latest", True, 8192), ("vec:latest", False, 8192)]
    assert models[0].operations == ("chat", "generate", "embed")
    assert [path for path, _, _ in fake.asked].count("/api/show") == 2
    assert [(m.loaded_bytes, m.vram_bytes) for m in models] == [(900, 700), (0, 0)]
    assert {path for path, _, _ in fake.asked} == {"/api/tags", "/api/ps", "/api/show"}
    assert (await ollama.probe()).simulated


async def test_what_a_model_can_do_and_how_it_is_loaded_is_told(fake: FakeEndpoint) -> None:
    """Abilities, digest, quantisation; the window that this worker asks for, else as the server has loaded it, or had."""
    one = b'"digest":"d1","details":{"quantization_level":"Q4_K_M"}'
    fake.replies["/api/tags"] = Reply((b'{"models":[{"name":"a",' + one + b'},{"name":"b","digest":"d2"},{"name":"c","digest":"d3"}]}',))
    fake.replies["/api/show"] = Reply((b'{"capabilities":["completion","tools","vision"],"model_info":{"llama.context_length":8192}}',))
    loaded = b'{"models":[{"name":"a","context_length":2048},{"name":"b","context_length":4096}]}'
    fake.replies["/api/ps"] = Reply((loaded,))
    settings = WorkerSettings(url=fake.url, profiles={"a": {"num_ctx": 6144}, "c": {"num_ctx": 99_999}})
    backend = OllamaBackend(settings)
    try:
        models = {model.name: model for model in await backend.models()}
        fake.replies["/api/ps"] = Reply((b'{"models":[]}',))
        later = {model.name: model.window for model in await backend.models()}
    finally:
        await backend.close()
    assert (models["a"].digest, models["a"].quantisation) == ("d1", "Q4_K_M")
    assert models["a"].abilities == {"vision": True, "tools": True, "thinking": False}
    assert {name: model.window for name, model in models.items()} == later == {"a": 6144, "b": 4096, "c": 8192}


async def test_a_server_that_names_no_abilities_denies_none(fake: FakeEndpoint) -> None:
    """What is not said is not known; the same for a window that the server chooses when it loads."""
    fake.replies["/api/tags"] = Reply((b'{"models":[{"name":"old"}]}',))
    fake.replies["/api/ps"] = Reply((b'{"models":[]}',))
    fake.replies["/api/show"] = Reply((b"{}",))
    backend = OllamaBackend(WorkerSettings(url=fake.url))
    try:
        (old,) = await backend.models()
    finally:
        await backend.close()
    assert (old.abilities, old.window, old.operations) == ({}, None, ("chat", "generate"))


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("gpu-box", "http://gpu-box:11434"),
        ("gpu-box:9000/", "http://gpu-box:9000"),
        ("https://models.example", "https://models.example:443"),
        ("http://10.0.0.2:11435", "http://10.0.0.2:11435"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(value: str, address: str) -> None:
    """Scheme, host and port are optional, and an any-address means this machine."""
    assert ollama_url(value) == address


def _likely(content: str, *logprobs: Any, thinking: str | None = None) -> bytes:
    message = {"role": "assistant", "content": content, **({"thinking": thinking} if thinking else {})}
    return json.dumps({"message": message, "logprobs": [{"token": "t", "logprob": value} for value in logprobs], "done": False}).encode()


async def test_how_likely_the_answer_was_is_one_number_of_its_own_tokens(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """The mean over tokens, not over lines; thoughts do not count, nor what is no number; what is unlikely beyond measure is bounded."""
    fake.ndjson("/api/chat", _likely("", -9.0, thinking="hm"), _likely("a", -1.0), _likely("b", -2.0, -3.0, "x", None, True), DONE)
    _, completion = await ask(ollama, logprobs=True)
    assert (completion.answer.text, completion.answer.mean_logprob, fake.asked[0][1]["logprobs"]) == ("ab", -2.0, True)
    fake.ndjson("/api/chat", _likely("a", -1e300), _likely("b", 5.0), DONE)
    assert (await ask(ollama, logprobs=True))[1].answer.mean_logprob == -500.0


@pytest.mark.parametrize("odd", [b'"x"', b"{}", b"[1,null]", b'[{"logprob":[]}]', b"null"])
async def test_an_answer_without_log_probabilities_says_none(fake: FakeEndpoint, ollama: OllamaBackend, odd: bytes) -> None:
    """Nor does one that was not asked for them; an endpoint that says them otherwise fails no call."""
    fake.ndjson("/api/chat", b'{"message":{"role":"assistant","content":"a"},"logprobs":%b}' % odd, DONE)
    assert (await ask(ollama, logprobs=True))[1].answer.mean_logprob is None
    fake.ndjson("/api/chat", _likely("a", -1.0), DONE)
    _, completion = await ask(ollama)
    assert completion.answer.mean_logprob is None
    assert "logprobs" not in fake.asked[1][1]


ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
NOW = {"type": "function", "function": {"name": "now", "parameters": {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object"}}}}}


async def test_a_required_call_is_written_in_its_schema(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """Ollama has no word for it: the format leaves no other way, and what is written is the call, no text."""
    written = (b'{"message":{"content":"{\\"name\\": \\"add\\", "}}', b'{"message":{"content":"\\"arguments\\": {\\"a\\": 3}}"}}')
    fake.ndjson("/api/chat", *written, DONE)
    deltas, completion = await ask(ollama, tools=(ADD, NOW), tool_choice="required", format="json")
    assert [delta.text for delta in deltas if delta.text] == []
    (call,) = completion.answer.tool_calls
    assert (call["function"], completion.answer.text) == ({"name": "add", "arguments": '{"a":3}'}, "")
    assert completion.answer.finish_reason is FinishReason.TOOL_CALLS
    assert call["id"]
    _, body, _ = fake.asked[0]
    assert "tools" not in body
    first, second = body["format"]["anyOf"]
    assert first["properties"] == {"name": {"type": "string", "enum": ["add"]}, "arguments": ADD["function"]["parameters"]}  # type: ignore[index]
    assert second["properties"]["arguments"] == {"type": "object"}, "a reference would lead nowhere"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert '"name":"add"' in body["messages"][0]["content"]


@pytest.mark.parametrize("text", ["no call", '{"name": "other", "arguments": {}}', '{"name": "add"}', '{"name": "add", "argum', "[]"])
async def test_what_is_no_call_is_none(fake: FakeEndpoint, ollama: OllamaBackend, text: str) -> None:
    """Also one that the token limit has cut: its text reaches nobody as an answer."""
    fake.ndjson("/api/chat", to_json({"message": {"content": text}}), DONE)
    _, completion = await ask(ollama, tools=(ADD,), tool_choice="required")
    assert (completion.answer.tool_calls, completion.answer.text) == ((), "")
    assert fake.asked[0][1]["format"]["properties"]["name"] == {"type": "string", "enum": ["add"]}


async def test_one_call_where_no_more_are_allowed(fake: FakeEndpoint, ollama: OllamaBackend) -> None:
    """The first; the others do not even reach who reads the stream."""
    calls = b'{"message":{"tool_calls":[{"function":{"name":"add","arguments":{}}},{"function":{"name":"now","arguments":{}}}]}}'
    fake.ndjson("/api/chat", calls, calls, DONE)
    for parallel, count in ((True, 4), (False, 1)):
        deltas, completion = await ask(ollama, tools=(ADD, NOW), parallel_tool_calls=parallel)
        assert len(completion.answer.tool_calls) == sum(len(delta.tool_calls) for delta in deltas) == count
