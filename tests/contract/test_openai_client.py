"""The official `openai` client as judge of tool calls, both ways: what it asks for reaches the model, what it gets it understands."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from shared.contracts.chat import Answer, FinishReason
from shared.contracts.job import Job
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, world


def function(name: str) -> Any:
    parameters = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    return {"type": "function", "function": {"name": name, "description": f"The {name} of a place.", "parameters": parameters}}


WEATHER, TIME = function("weather"), function("time")
PLACES = ("Oslo", "Rome")
ASKED: dict[str, Any] = {"model": "tiny:1", "messages": [{"role": "user", "content": "How is it in Oslo and in Rome?"}]}


def model(job: Job) -> Script:
    """A model that calls its first tool for each place, once where it may call but one; with results it answers by them."""
    results = {message.tool_call_id: (message.tool_name, message.content) for message in job.messages or () if message.role == "tool"}
    if results:
        return Script(text=json.dumps(results))
    if not job.tools:
        return Script(text="no tools")
    name = job.tools[0]["function"]["name"]
    places = PLACES if job.parallel_tool_calls else PLACES[:1]
    calls = tuple(
        {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": json.dumps({"place": place})}}
        for place in places
    )
    return Script(answer=Answer(tool_calls=calls, finish_reason=FinishReason.TOOL_CALLS))


def client(at: World) -> openai.AsyncOpenAI:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=at.ingress.asgi()))
    return openai.AsyncOpenAI(api_key="none", base_url="http://test/v1", http_client=http, max_retries=0)


def job_of(at: World) -> Job:
    """What became of the last request."""
    return list(at.planner.jobs.values())[-1].job


async def test_calls_and_results_go_both_ways() -> None:
    """Two calls with ids; their results under these ids reach the model, each with its tool's name."""
    async with world(script=model) as at:
        first = (await client(at).chat.completions.create(**ASKED, tools=[WEATHER, TIME])).choices[0]
        assert (first.finish_reason, first.message.content) == ("tool_calls", None)
        calls = first.message.tool_calls or []
        assert [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls] == [
            (f"call_{place}", "weather", {"place": place}) for place in PLACES
        ]
        results = [{"role": "tool", "tool_call_id": call.id, "content": f"fine {call.id}"} for call in reversed(calls)]
        messages = [*ASKED["messages"], first.message.model_dump(exclude_none=True), *results]
        second = await client(at).chat.completions.create(model="tiny:1", messages=messages, tools=[WEATHER])
        assert json.loads(second.choices[0].message.content or "") == {
            f"call_{place}": ["weather", f"fine call_{place}"] for place in reversed(PLACES)
        }


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        ("auto", ["weather", "time"], "auto"),
        ("required", ["weather", "time"], "required"),
        ("none", [], "auto"),
        ({"type": "function", "function": {"name": "time"}}, ["time"], "required"),
    ],
)
async def test_choices_reach_the_model(choice: Any, tools: list[str], expected: str) -> None:
    """Which tools it may call, and whether it must."""
    async with world(script=model) as at:
        answer = await client(at).chat.completions.create(**ASKED, tools=[WEATHER, TIME], tool_choice=choice)
        job = job_of(at)
        assert ([tool["function"]["name"] for tool in job.tools], job.tool_choice) == (tools, expected)
        called = {call.function.name for call in answer.choices[0].message.tool_calls or []}
        assert called == ({tools[0]} if tools else set())


async def test_one_call_at_a_time_where_the_client_wants_it() -> None:
    """`parallel_tool_calls: false` reaches the model."""
    async with world(script=model) as at:
        answer = await client(at).chat.completions.create(**ASKED, tools=[WEATHER], parallel_tool_calls=False)
        assert len(answer.choices[0].message.tool_calls or []) == 1
        assert not job_of(at).parallel_tool_calls


async def test_streamed_calls_are_put_together_by_the_client() -> None:
    """Each delta has its index; id, name and arguments come once, as whole as they are."""
    async with world(script=model) as at:
        calls: dict[int, dict[str, str]] = {}
        reason = None
        async for chunk in await client(at).chat.completions.create(**ASKED, tools=[WEATHER, TIME], stream=True):
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
                for piece in choice.delta.tool_calls or ():
                    call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                    call["id"] += piece.id or ""
                    call["name"] += (piece.function.name if piece.function else None) or ""
                    call["arguments"] += (piece.function.arguments if piece.function else None) or ""
        assert reason == "tool_calls"
        assert calls == {
            index: {"id": f"call_{place}", "name": "weather", "arguments": json.dumps({"place": place})}
            for index, place in enumerate(PLACES)
        }
        async with client(at).chat.completions.stream(**ASKED, tools=[WEATHER]) as stream:
            final = await stream.get_final_completion()
        assert [call.id for call in final.choices[0].message.tool_calls or []] == [f"call_{place}" for place in PLACES]


async def test_tools_that_would_be_lost_are_refused() -> None:
    """A pattern asks in words of its own: it does not silently leave the caller's tools out."""
    async with world(script=model) as at:
        with pytest.raises(openai.BadRequestError, match="pattern vote takes no tools") as caught:
            await client(at).chat.completions.create(**ASKED | {"model": "tutti/vote"}, tools=[WEATHER])
        assert caught.value.param == "tools"
        with pytest.raises(openai.BadRequestError, match="known: weather") as caught:
            await client(at).chat.completions.create(
                **ASKED, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "cook"}}
            )
        assert caught.value.param == "tool_choice"
