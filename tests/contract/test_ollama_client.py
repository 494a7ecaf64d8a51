"""The official `ollama` client as judge of Ollama's dialect: chats, generations, embeddings, lists, errors; and its wire form."""

from __future__ import annotations

import json
from typing import Any

import httpx
import ollama
import pytest

from shared.contracts.chat import Answer, FinishReason
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.node import NodeModel
from shared.contracts.result import Status
from tests.contract.test_openai_client import WEATHER, job_of, model
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, node, world

ASKED: dict[str, Any] = {"model": "tiny:1", "messages": [{"role": "user", "content": "Name three colours."}]}
COLOURS = Script(text="red, green, blue", chunks=("red, ", "green, "))
VECTORS = {"a": (1.0, 0.0), "b": (0.0, 1.0)}


EMBEDDER = node(capabilities=("embed",)).changed(
    models=(NodeModel(name="tiny:1", operations=("embed",), resident=True, digest="d" * 64, size_bytes=7),)
)


def client(at: World) -> ollama.AsyncClient:
    return ollama.AsyncClient(host="http://test", transport=httpx.ASGITransport(app=at.ingress.asgi()))


def colours(_: Job) -> Script:
    return COLOURS


def embedder(job: Job) -> Script:
    return Script(answer=Answer(embeddings=tuple(VECTORS[text] for text in job.texts or ())))


def thinker(_: Job) -> Script:
    return Script(answer=Answer(text="42", thinking="hm", finish_reason=FinishReason.LENGTH))


async def test_a_stream_is_the_default_and_lines_of_json() -> None:
    """Every line is a message; the last one alone is done, with counts and durations as whole numbers."""
    async with world(script=colours) as at:
        answer = await at.client.post("/api/chat", json=ASKED)
        assert answer.headers["content-type"] == "application/x-ndjson"
        rows = [json.loads(line) for line in answer.text.splitlines()]
        assert [row["done"] for row in rows] == [False] * (len(rows) - 1) + [True]
        assert all(row["message"]["role"] == "assistant" and row["created_at"].endswith("Z") for row in rows)
        assert "".join(row["message"]["content"] for row in rows) == COLOURS.text
        last = rows[-1]
        assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 3, 5)
        assert all(isinstance(last[name], int) for name in ("total_duration", "eval_duration"))
        parts = [part.message.content or "" async for part in await client(at).chat(**ASKED, stream=True)]
        assert "".join(parts) == COLOURS.text


async def test_whole_answers() -> None:
    """Chat and generate, with what the model thought and why it ended."""
    async with world(script=thinker) as at:
        chat = await client(at).chat(**ASKED, think=True, options={"num_predict": 7, "temperature": 0.0, "num_ctx": 4_096})
        assert (chat.message.content, chat.message.thinking, chat.done_reason, chat.eval_count) == ("42", "hm", "length", 5)
        assert (job_of(at).options.max_tokens, job_of(at).options.temperature, job_of(at).options.think) == (7, 0.0, True)
        made = await client(at).generate("tiny:1", "six by nine", system="You count.", format={"type": "object"}, keep_alive="5m")
        assert (made.response, made.thinking, made.done) == ("42", "hm", True)
        job = job_of(at)
        assert (job.kind, job.prompt, job.system, job.format) == ("generate", "six by nine", "You count.", {"type": "object"})
        seen = await client(at).generate("tiny:1", "what is it", images=["aGk="])
        assert seen.response == "42"
        assert job_of(at).messages[0].images == ("aGk=",)  # type: ignore[index]


async def test_calls_of_tools_and_their_results() -> None:
    """Arguments are objects both ways; a result is known by its tool's name."""
    async with world(script=model) as at:
        first = await client(at).chat(**ASKED, tools=[WEATHER])
        calls = first.message.tool_calls or []
        assert [(call.function.name, dict(call.function.arguments)) for call in calls] == [
            ("weather", {"place": "Oslo"}),
            ("weather", {"place": "Rome"}),
        ]
        assert first.done_reason == "stop"
        streamed = [part async for part in await client(at).chat(**ASKED, tools=[WEATHER], stream=True)]
        assert [len(part.message.tool_calls or ()) for part in streamed] == [2, 0]
        turns = [
            *ASKED["messages"],
            first.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_name": "weather", "content": "rain"},
        ]
        await client(at).chat("tiny:1", turns, tools=[WEATHER])
        *_, called, result = job_of(at).messages or ()
        assert json.loads(json.dumps(called.tool_calls[0]["function"]["arguments"])) == {"place": "Oslo"}
        assert (result.role, result.tool_name, result.content) == ("tool", "weather", "rain")


async def test_embeddings_in_order_and_in_the_older_form() -> None:
    """One text or several; none is an empty list, for which no job is made."""
    async with world(script=embedder, nodes=(EMBEDDER,)) as at:
        assert (await client(at).embed("tiny:1", ["b", "a"])).embeddings == [[0.0, 1.0], [1.0, 0.0]]
        assert (await client(at).embed("tiny:1", "a")).embeddings == [[1.0, 0.0]]
        assert (await client(at).embeddings("tiny:1", "b")).embedding == [0.0, 1.0]
        jobs = len(at.planner.jobs)
        assert (await at.client.post("/api/embed", json={"model": "tiny:1", "input": []})).json()["embeddings"] == []
        assert len(at.planner.jobs) == jobs


@pytest.mark.parametrize(("path", "field"), [("/api/generate", "response"), ("/api/chat", "message")])
async def test_a_model_is_loaded_by_an_empty_request_and_given_up_by_another(path: str, field: str) -> None:
    """Loading is a call of one token whose text is nobody's; giving up needs no model."""
    async with world(script=colours) as at:
        empty: Any = "" if field == "response" else {"role": "assistant", "content": ""}
        loaded = (await at.client.post(path, json={"model": "tiny:1"})).json()
        assert (loaded["done"], loaded["done_reason"], loaded[field]) == (True, "load", empty)
        assert job_of(at).options.max_tokens == 1
        jobs = len(at.planner.jobs)
        left = (await at.client.post(path, json={"model": "tiny:1", "keep_alive": 0})).json()
        assert (left["done"], left["done_reason"], left[field]) == (True, "unload", empty)
        assert len(at.planner.jobs) == jobs
        assert (await at.client.post(path, json={"model": "none", "keep_alive": 0})).status_code == 404


async def test_lists_of_models() -> None:
    """What may be asked for, what is loaded, one model; a version that clients understand; that somebody is here."""
    async with world(nodes=(node("node-0", "big:1"), EMBEDDER.changed(mailbox=1))) as at:
        shown = {one.model: one for one in (await client(at).list()).models}
        assert {"auto", "tiny:1", "big:1"} <= shown.keys()
        assert (shown["tiny:1"].digest, shown["tiny:1"].size) == ("d" * 64, 7)
        assert [one.model for one in (await client(at).ps()).models] == ["tiny:1"]
        assert [(await client(at).show(name)).capabilities for name in ("tiny:1", "big:1")] == [["embedding"], ["completion"]]
        assert (await client(at).show("tutti/vote")).capabilities == ["completion"]
        for body in ({"model": "", "name": "big:1"}, {"model": "big:1", "name": ""}):  # as its own command sends them
            assert (await at.client.post("/api/show", json=body)).json()["name"] == "big:1"
        assert len(shown["auto"].digest or "") == 64
        assert (await at.client.get("/api/version")).json()["version"].count(".") == 2
        assert (await at.client.get("/")).text == "Ollama is running"
        assert (await at.client.head("/")).status_code == 200


async def test_errors_are_one_text() -> None:
    """Before a stream as a status, in it as a line; what is not supported is refused by name, and nothing is silently left out."""
    async with world(script=lambda _: Script(status=Status.FAILED, failure=BROKEN, chunks=("so",))) as at:
        with pytest.raises(ollama.ResponseError, match="no-such-model") as caught:
            await client(at).chat("no-such-model", ASKED["messages"])
        assert caught.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="it fell over"):
            _ = [part async for part in await client(at).chat(**ASKED, stream=True)]
        wrong: dict[str, dict[str, Any]] = {"logprobs": {"logprobs": True}, "mirostat": {"options": {"mirostat": 2}}}
        wrong |= {"temperatur": {"options": {"temperatur": 1}}, "tool": {"tool": []}}
        for name, more in wrong.items():
            refused = await at.client.post("/api/chat", json=ASKED | more)
            assert (refused.status_code, isinstance(refused.json()["error"], str)) == (400, True)
            assert name in refused.json()["error"]
        for what in (client(at).push("tiny:1"), client(at).create("mine", from_="tiny:1")):
            with pytest.raises(ollama.ResponseError, match="at the nodes") as caught:
                await what
            assert caught.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="no node that manages models has the model 'gone:1'") as caught:
            await client(at).delete("gone:1")
        assert caught.value.status_code == 404


async def test_models_are_pulled_copied_and_deleted() -> None:
    """Whole and streamed, as the client reads it."""
    async with world(nodes=(node(manages="chat"),)) as at:
        assert (await client(at).pull("new:1")).status == "success"
        assert [part.status async for part in await client(at).pull("new:1", stream=True)] == ["success"]
        assert (await client(at).copy("tiny:1", "mine")).status == "success"
        assert (await client(at).delete("tiny:1")).status == "success"
        assert [seen.job.input["action"] for seen in at.planner.jobs.values()] == ["pull", "pull", "copy", "delete"]


BROKEN = Failure(kind=FailureKind.MODEL_ERROR, message="it fell over")
