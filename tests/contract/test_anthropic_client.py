"""The official `anthropic` client as judge of Anthropic's dialect: messages whole and streamed, tools, thinking, counts, errors."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest

from shared.contracts.chat import Answer, FinishReason
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.result import Status
from tests.contract.test_openai_client import PLACES, job_of, model
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, world

ASKED: dict[str, Any] = {"model": "tiny:1", "max_tokens": 99, "messages": [{"role": "user", "content": "How is it in Oslo and in Rome?"}]}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
WEATHER: Any = {"name": "weather", "description": "The weather of a place.", "input_schema": SCHEMA}
TIME: Any = WEATHER | {"name": "time"}


def client(at: World) -> anthropic.AsyncAnthropic:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=at.ingress.asgi()))
    return anthropic.AsyncAnthropic(api_key="none", base_url="http://test", http_client=http, max_retries=0)


def thinker(_: Job) -> Script:
    return Script(answer=Answer(text="42 it is", thinking="hm", finish_reason=FinishReason.LENGTH), chunks=("42 ",))


async def test_a_whole_message() -> None:
    """Thinking before text, why it ended, what it cost; the request's words reach the model."""
    async with world(script=thinker) as at:
        found = await client(at).messages.create(
            **ASKED,
            system=[{"type": "text", "text": "Be short."}],
            stop_sequences=["END"],
            metadata={"user_id": "u"},
            extra_body={"temperature": 0.5},
        )
        assert [block.type for block in found.content] == ["thinking", "text"]
        assert (found.stop_reason, found.usage.input_tokens, found.usage.output_tokens) == ("max_tokens", 3, 5)
        job = job_of(at)
        assert [(turn.role, turn.content) for turn in job.messages or ()] == [
            ("system", "Be short."),
            ("user", ASKED["messages"][0]["content"]),
        ]
        assert (job.options.max_tokens, job.options.temperature, job.options.stop, job.metadata) == (99, 0.5, ("END",), {"user": "u"})


async def test_a_stream_is_put_together_by_the_client() -> None:
    """Blocks begin and end, one after another, however text comes; usage is told at the end."""
    async with world(script=thinker) as at:
        async with client(at).messages.stream(**ASKED) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert text == "42 it is"
        assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("max_tokens", 3, 5)
        assert [block.type for block in final.content][-1] == "text"


async def test_calls_and_results_go_both_ways() -> None:
    """Calls are blocks with an input; results reach the model before what the caller says, each with its tool's name."""
    async with world(script=model) as at:
        first = await client(at).messages.create(**ASKED, tools=[WEATHER, TIME])
        calls = [block for block in first.content if block.type == "tool_use"]
        assert first.stop_reason == "tool_use"
        assert [(call.id, call.name, call.input) for call in calls] == [(f"call_{place}", "weather", {"place": place}) for place in PLACES]
        results: list[Any] = [{"type": "tool_result", "tool_use_id": call.id, "content": f"fine {call.id}"} for call in calls]
        results[0] |= {"content": [{"type": "text", "text": "no"}], "is_error": True}
        turns: list[Any] = [*ASKED["messages"], {"role": "assistant", "content": first.content}]
        turns.append({"role": "user", "content": [*results, {"type": "text", "text": "Well?"}]})
        await client(at).messages.create(**ASKED | {"messages": turns}, tools=[WEATHER])
        *_, called, one, two, said = job_of(at).messages or ()
        assert [call["id"] for call in called.tool_calls] == [call.id for call in calls]
        assert [(turn.role, turn.tool_name, turn.content) for turn in (one, two)] == [
            ("tool", "weather", "error: no"),
            ("tool", "weather", "fine call_Rome"),
        ]
        assert (said.role, said.content) == ("user", "Well?")


async def test_streamed_calls() -> None:
    """Each is a block whose input comes as JSON text."""
    async with world(script=model) as at:
        async with client(at).messages.stream(**ASKED, tools=[WEATHER]) as stream:
            final = await stream.get_final_message()
        assert [(block.type, getattr(block, "input", None)) for block in final.content] == [("tool_use", {"place": p}) for p in PLACES]
        assert final.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("choice", "tools", "expected", "parallel"),
    [
        ({"type": "auto"}, ["weather", "time"], "auto", True),
        ({"type": "any", "disable_parallel_tool_use": True}, ["weather", "time"], "required", False),
        ({"type": "none"}, [], "auto", True),
        ({"type": "tool", "name": "time"}, ["time"], "required", True),
    ],
)
async def test_choices_reach_the_model(choice: Any, tools: list[str], expected: str, parallel: bool) -> None:
    """Which tools it may call, whether it must, and whether several at once."""
    async with world(script=model) as at:
        await client(at).messages.create(**ASKED, tools=[WEATHER, TIME], tool_choice=choice)
        job = job_of(at)
        assert [tool["function"]["name"] for tool in job.tools] == tools
        assert (job.tool_choice, job.parallel_tool_calls) == (expected, parallel)


async def test_pictures_and_thoughts() -> None:
    """Pictures come in base64; earlier thoughts are not given to a model again; how it thinks is the caller's."""
    async with world() as at:
        picture: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
        thought: Any = {"type": "thinking", "thinking": "hm", "signature": "x"}
        turns: Any = [
            {"role": "user", "content": [picture, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "A cat."}]},
            {"role": "user", "content": "Sure?"},
        ]
        await client(at).messages.create(**ASKED | {"messages": turns}, thinking={"type": "enabled", "budget_tokens": 1_024})
        job = job_of(at)
        assert [(turn.content, turn.images) for turn in job.messages or ()] == [("What is it?", ("aGk=",)), ("A cat.", ()), ("Sure?", ())]
        assert job.options.think is True


async def test_tokens_are_counted_as_an_estimate() -> None:
    """More text is more tokens."""
    async with world() as at:
        few = await client(at).messages.count_tokens(model="tiny:1", messages=ASKED["messages"])
        more = await client(at).messages.count_tokens(model="tiny:1", messages=ASKED["messages"], tools=[WEATHER], system="x" * 400)
        assert few.input_tokens + 100 < more.input_tokens
        assert not at.planner.jobs


async def test_errors_are_typed() -> None:
    """As the client's own exceptions, before a stream and in it; what is not supported is refused by name."""
    failure = Failure(kind=FailureKind.MODEL_ERROR, message="it fell over")
    async with world(script=lambda _: Script(status=Status.FAILED, failure=failure, chunks=("so",))) as at:
        with pytest.raises(anthropic.NotFoundError, match="no-such-model"):
            await client(at).messages.create(**ASKED | {"model": "no-such-model"})
        with pytest.raises(anthropic.APIStatusError, match="it fell over"):
            async with client(at).messages.stream(**ASKED) as stream:
                await stream.get_final_message()
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"container": "x"}, "container"),
            ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]}, "web_search_20250305"),
            ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "document"),
            ({"max_token": 1}, "max_token"),
        ]
        for more, name in wrong:
            answer = await at.client.post("/v1/messages", json=ASKED | more)
            assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
            assert name in answer.json()["error"]["message"]
