"""The OpenAI-compatible backend against scripted bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from services.worker.backends.base import ModelCall
from services.worker.backends.openai import OpenAIBackend, request
from services.worker.settings import WorkerSettings
from shared.clock import LoopClock
from shared.contracts.chat import ChatMessage, FinishReason, Operation, Options
from tests.unit.worker.calling import ask, failure_of
from tests.unit.worker.fake_endpoint import FakeEndpoint, Reply, fake_endpoint
from tests.unit.worker.world import step

CHAT = "/v1/chat/completions"


@pytest.fixture
async def fake() -> AsyncIterator[FakeEndpoint]:
    async with fake_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def openai(fake: FakeEndpoint) -> AsyncIterator[OpenAIBackend]:
    backend = OpenAIBackend(WorkerSettings(backend="openai", url=f"{fake.url}/v1", api_key=SecretStr("k")), LoopClock())
    yield backend
    await backend.close()


def delta(**fields: object) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": fields}]}).encode()


STOP = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2},"timings":{"prompt_n":3,"prompt_ms":1.5,"predicted_ms":4.0}}'


async def test_a_chat_stream(fake: FakeEndpoint, openai: OpenAIBackend) -> None:
    """Text, thinking, usage of the last event, llama.cpp's timings; the key and the always-sent options."""
    fake.events(CHAT, delta(reasoning_content="hm"), delta(content="Hel"), delta(content="lo"), STOP, USAGE, b"[DONE]")
    deltas, completion = await ask(openai, options=Options(top_k=3))
    assert "".join(d.text for d in deltas) == completion.answer.text == "Hello"
    assert completion.answer.thinking == "hm"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.estimated) == (3, 2, False)
    assert (completion.timings.prefill_ms, completion.timings.decode_ms, completion.prefilled_tokens) == (1.5, 4.0, 3)
    _, body, headers = fake.asked[0]
    assert headers["Authorization"] == "Bearer k"
    assert (body["temperature"], body["max_tokens"], body["top_k"], body["stream"]) == (0.7, 1024, 3, True)
    assert "seed" not in body


async def test_thoughts_have_two_names(fake: FakeEndpoint, openai: OpenAIBackend) -> None:
    """`reasoning` is what vLLM and others call them; neither is part of the text."""
    fake.events(CHAT, delta(reasoning="h"), delta(reasoning_content="m"), delta(content="yes"), STOP, b"[DONE]")
    deltas, completion = await ask(openai)
    assert (completion.answer.text, completion.answer.thinking) == ("yes", "hm")
    assert "".join(delta.thinking or "" for delta in deltas) == "hm"


@pytest.mark.parametrize(("think", "sent"), [(None, None), (False, "none"), (True, "medium"), ("high", "high")])
@pytest.mark.parametrize("thinks", [True, False])
def test_an_effort_is_sent_to_models_that_think(think: Any, sent: str | None, thinks: bool) -> None:
    """To others it would be an unknown word."""
    body = request(ModelCall(step(1, options=Options(think=think)), "small", thinks=thinks), WorkerSettings())
    assert body.get("reasoning_effort") == (sent if thinks else None)
    assert "think" not in body


async def test_tool_calls_in_pieces_are_joined(fake: FakeEndpoint, openai: OpenAIBackend) -> None:
    """Names come once, arguments in pieces; two calls are told apart by their index."""
    fake.events(
        CHAT,
        delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}]),
        delta(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        b'{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}',
        b"[DONE]",
    )
    _, completion = await ask(openai)
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in completion.answer.tool_calls] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "{}"),
    ]
    assert completion.answer.finish_reason is FinishReason.TOOL_CALLS
    assert completion.usage.estimated


async def test_formats_images_and_completions(fake: FakeEndpoint, openai: OpenAIBackend) -> None:
    """A schema becomes response_format, an image a data address, generate the completions path."""
    fake.events(CHAT, delta(content="{}"), STOP, b"[DONE]")
    fake.events("/v1/completions", b'{"choices":[{"text":"yes","finish_reason":"length"}]}', b"[DONE]")
    await ask(openai, format={"type": "object"}, messages=(ChatMessage(role="user", content="c", images=("/9j/AA==",)),))
    _, generated = await ask(openai, operation=Operation.GENERATE, prompt="p", messages=())
    assert fake.asked[0][1]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert fake.asked[0][1]["messages"][0]["content"][1]["image_url"]["url"] == "data:image/jpeg;base64,/9j/AA=="
    assert (generated.answer.text, generated.answer.finish_reason) == ("yes", FinishReason.LENGTH)


async def test_embeddings_come_in_the_order_of_the_texts(fake: FakeEndpoint, openai: OpenAIBackend) -> None:
    """The index decides, not the order of arrival."""
    data = b'{"data":[{"index":1,"embedding":[1]},{"index":0,"embedding":[0]}],"usage":{"prompt_tokens":2}}'
    fake.replies["/v1/embeddings"] = Reply((data,))
    _, completion = await ask(openai, operation=Operation.EMBED, texts=("a", "b"))
    assert completion.answer.embeddings == ((0.0,), (1.0,))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply((b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n',)), "broken_stream"),
        (Reply((b'data: {"error":{"message":"boom"}}\n\n',)), "model_error"),
        (Reply((b'{"error":{"message":"slow down"}}',), status=429), "overloaded"),
        (Reply((b'{"error":{"message":"wrong key"}}',), status=401), "model_error"),
        (Reply((b'{"error":{"message":"no such model"}}',), status=404), "unknown_model"),
        (Reply((b'{"error":{"message":"request (12052 tokens) exceeds the available context size"}}',), status=400), "context_length"),
        (Reply((b'{"error":{"message":"This model\'s maximum context length is 8 tokens."}}',), status=400), "context_length"),
        (Reply((b'{"error":{"message":"image input is not supported - hint: mmproj"}}',), status=500), "unsupported"),
    ],
)
async def test_failures(fake: FakeEndpoint, openai: OpenAIBackend, reply: Reply, kind: str) -> None:
    """Errors before and in the stream, limits, and an end without an end."""
    fake.replies[CHAT] = reply
    assert (await failure_of(openai)).kind == kind


async def test_models_and_the_embedded_node(fake: FakeEndpoint, openai: OpenAIBackend) -> None:
    """Context length from vLLM's or llama.cpp's fields; the embedded node names itself by a header."""
    body = b'{"data":[{"id":"chatty","meta":{"n_ctx_train":2048,"size":9}},{"id":"nomic-embed","max_model_len":512}]}'
    fake.replies["/v1/models"] = Reply((body,), headers={"X-Tutti-Node": "embedded"})
    models = await openai.models()
    assert [(m.name, m.context_length, m.window, m.operations) for m in models] == [
        ("chatty", 2048, None, ("chat", "generate")),
        ("nomic-embed", 512, 512, ("embed",)),
    ]
    probe = await openai.probe()
    assert (probe.kind, probe.simulated) == ("embedded", False)


@pytest.mark.parametrize("props", [False, True])
async def test_llama_cpp_tells_the_window_of_a_slot_and_whether_it_sees(fake: FakeEndpoint, openai: OpenAIBackend, props: bool) -> None:
    """In its list of models; older versions by `/props`, which nobody else is asked for."""
    listed = b',"n_ctx":2048},"architecture":{"input_modalities":["text","image"]}' if not props else b"}"
    entry = b'{"id":"m","owned_by":"llamacpp","meta":{"n_ctx_train":32768,"ftype":"Q4_K - Medium"' + listed + b"}"
    fake.replies["/v1/models"] = Reply((b'{"data":[' + entry + b"]}",))
    fake.replies["/props"] = Reply((b'{"default_generation_settings":{"n_ctx":2048},"modalities":{"vision":true}}',))
    (model,) = await openai.models()
    assert (model.context_length, model.window, model.quantisation) == (32768, 2048, "Q4_K - Medium")
    assert model.abilities == {"vision": True}
    assert [path for path, _, _ in fake.asked].count("/props") == props


async def test_a_model_that_is_not_listed_is_not_asked_for(fake: FakeEndpoint, openai: OpenAIBackend) -> None:
    """Some servers ignore the model's name: an answer of another model than the one asked for is no answer."""
    fake.replies["/v1/models"] = Reply((b'{"data":[{"id":"chatty"}]}',))
    fake.events(CHAT, delta(content="x"), STOP, b"[DONE]")
    await openai.models()
    assert (await failure_of(openai, model="absent")).kind == "unknown_model"
    assert (await ask(openai, model="chatty"))[1].answer.text == "x"


async def test_how_likely_the_answer_was_is_one_number(fake: FakeEndpoint, openai: OpenAIBackend) -> None:
    """Of the tokens of its text; only where it is asked for, and told."""

    def likely(*values: float, **fields: str) -> bytes:
        tokens = [{"token": "t", "logprob": value} for value in values]
        return json.dumps({"choices": [{"index": 0, "delta": fields, "logprobs": {"content": tokens}}]}).encode()

    fake.events(CHAT, likely(-9.0, reasoning_content="hm"), likely(-1.0, content="a"), likely(-2.0, -3.0, content="b"), STOP, b"[DONE]")
    _, completion = await ask(openai, logprobs=True)
    assert (completion.answer.mean_logprob, fake.asked[0][1]["logprobs"]) == (-2.0, True)
    assert (await ask(openai))[1].answer.mean_logprob is None
    assert "logprobs" not in fake.asked[1][1]
    fake.events(CHAT, b'{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":null}]}', STOP, b"[DONE]")
    assert (await ask(openai, logprobs=True))[1].answer.mean_logprob is None


@pytest.mark.parametrize(("choice", "parallel"), [("auto", True), ("required", True), ("auto", False)])
def test_wishes_about_calls_are_passed_on(choice: Any, parallel: bool) -> None:
    """Only where there are any: a server that knows neither word is not asked for the default."""
    asked = step(1, tools=({"type": "function", "function": {"name": "f"}},), tool_choice=choice, parallel_tool_calls=parallel)
    body = request(ModelCall(asked, "small"), WorkerSettings())
    assert body.get("tool_choice") == (None if choice == "auto" else "required")
    assert body.get("parallel_tool_calls") == (None if parallel else False)


async def test_the_embedded_node_is_held_to_a_call_by_a_schema(fake: FakeEndpoint) -> None:
    """Its server takes the word for it and passes it over."""
    backend = OpenAIBackend(WorkerSettings(backend="embedded", url=fake.url), LoopClock())
    tools = ({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},)
    fake.events(CHAT, delta(content='{"name": "f", '), delta(content='"arguments": {"a": 1}}'), STOP, b"[DONE]")
    try:
        deltas, completion = await ask(backend, tools=tools, tool_choice="required")
    finally:
        await backend.close()
    [call] = completion.answer.tool_calls
    assert (call["function"], completion.answer.text) == ({"name": "f", "arguments": '{"a":1}'}, "")
    assert completion.answer.finish_reason is FinishReason.TOOL_CALLS
    assert "".join(piece.text for piece in deltas) == ""
    _, body, _ = fake.asked[0]
    assert not {"tools", "tool_choice"} & set(body)
    assert body["response_format"]["json_schema"]["schema"]["properties"]["name"] == {"type": "string", "enum": ["f"]}
