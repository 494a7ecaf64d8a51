"""The official `openai` client as judge of responses: whole, streamed, asked for later, resumed, ended, continued."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from services.ingress.dialects.openai.response_objects import ResponseWriter
from services.ingress.dialects.openai.response_requests import Echo
from services.ingress.dialects.port import Told
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.result import Status
from shared.contracts.usage import Usage
from tests.contract.test_ollama_client import COLOURS, colours
from tests.contract.test_openai_client import PLACES, client, job_of, model
from tests.support.fake_planner import Script
from tests.support.ingress_world import until, world

ASKED: dict[str, Any] = {"model": "tiny:1", "input": "Name three colours."}
WEATHER: Any = {"type": "function", "name": "weather", "description": "The weather.", "parameters": {"type": "object"}, "strict": None}
BROKEN = Failure(kind=FailureKind.MODEL_ERROR, message="it fell over")


def held(_: Job) -> Script:
    return Script(text=COLOURS.text, chunks=COLOURS.chunks, hold=True)


async def test_a_whole_response() -> None:
    """Its text, its cost; what was asked reaches the model."""
    async with world(script=colours) as at:
        found = await client(at).responses.create(
            **ASKED, instructions="Be short.", max_output_tokens=9, reasoning={"effort": "low"}, text={"format": {"type": "json_object"}}
        )
        assert (found.output_text, found.status, found.usage and found.usage.total_tokens) == (COLOURS.text, "completed", 8)
        job = job_of(at)
        assert [(turn.role, turn.content) for turn in job.messages or ()] == [("system", "Be short."), ("user", ASKED["input"])]
        assert (job.options.max_tokens, job.options.think, job.format, found.id) == (9, "low", "json", f"resp_{job.id}")


async def test_what_a_limit_cut_is_incomplete() -> None:
    """With what there is."""
    cut = Script(answer=Answer(text="red", finish_reason=FinishReason.LENGTH))
    async with world(script=lambda _: cut) as at:
        found = await client(at).responses.create(**ASKED)
        assert (found.status, found.output_text, found.incomplete_details and found.incomplete_details.reason) == (
            "incomplete",
            "red",
            "max_output_tokens",
        )


async def test_a_stream_and_calls_in_it() -> None:
    """Numbers grow; the client puts together text and calls."""
    for script in (colours, model):
        async with world(script=script) as at:
            async with client(at).responses.stream(**ASKED, tools=[WEATHER]) as stream:
                numbers = [event.sequence_number async for event in stream]
                final = await stream.get_final_response()
            assert numbers == sorted(set(numbers))
            if script is colours:
                assert final.output_text == COLOURS.text
            else:
                calls = [item for item in final.output if item.type == "function_call"]
                assert [(call.call_id, call.name, json.loads(call.arguments)) for call in calls] == [
                    (f"call_{place}", "weather", {"place": place}) for place in PLACES
                ]


async def test_calls_and_their_outputs_are_items() -> None:
    """Calls that follow one another are one turn of the model's."""
    async with world(script=model) as at:
        first = await client(at).responses.create(**ASKED, tools=[WEATHER])
        called = [item for item in first.output if item.type == "function_call"]
        outputs = [{"type": "function_call_output", "call_id": item.call_id, "output": "rain"} for item in called]
        items: list[Any] = [{"role": "user", "content": "Well?"}, *(item.model_dump() for item in first.output), *outputs]
        await client(at).responses.create(model="tiny:1", input=items, tools=[WEATHER])
        said = job_of(at).messages or ()
        assert [(turn.role, len(turn.tool_calls), turn.tool_name) for turn in said] == [
            ("user", 0, None),
            ("assistant", 2, None),
            ("tool", 0, "weather"),
            ("tool", 0, "weather"),
        ]


async def test_a_response_is_asked_for_later_and_goes_on_without_anybody() -> None:
    """Queued at once; the same one whenever it is asked for; a client that goes away ends nothing."""
    async with world(script=held) as at:
        made = await client(at).responses.create(**ASKED, background=True)
        assert (made.status, made.background) == ("queued", True)
        job = made.id.removeprefix("resp_")
        await until(lambda: job in at.planner.jobs, "the job")
        assert (await client(at).responses.retrieve(made.id)).status in ("queued", "in_progress")
        await at.planner.release(job)
        await until(lambda: (found := at.ingress.door.journal.status(job)) is not None and found.result is not None, "its end")
        found = await client(at).responses.retrieve(made.id)
        assert (found.status, found.output_text) == ("completed", COLOURS.text)
        assert not at.planner.cancels


async def test_a_response_is_ended() -> None:
    """Cancelled by name; what has ended stays as it is; nothing is deleted."""
    async with world(script=held) as at:
        made = await client(at).responses.create(**ASKED, background=True)
        job = made.id.removeprefix("resp_")
        await until(lambda: job in at.planner.jobs, "the job")
        await client(at).responses.cancel(made.id)
        await until(lambda: job in at.planner.cancels, "the cancel")
        with pytest.raises(openai.BadRequestError, match="durable job"):
            await client(at).responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client(at).responses.retrieve("resp_none")


async def test_a_stream_goes_on_behind_any_event() -> None:
    """No character is lost or repeated, wherever the first reader left, while it runs and when it is over."""
    async with world(script=held) as at:
        made: Any = client(at).responses.create(**ASKED, background=True, stream=True)
        reading = asyncio.create_task(_all(made))
        await until(lambda: bool(at.planner.jobs), "the job")
        job = next(iter(at.planner.jobs))
        live = [asyncio.create_task(_rest(client(at), job, after)) for after in (-1, 2, 3)]
        await until(lambda: (found := at.ingress.door.waiters.following(job)) is not None and len(found.text) > 5, "text")
        await at.planner.release(job)
        whole = await reading
        assert [event.type for event in whole][:2] == ["response.created", "response.in_progress"]
        for after, task in zip((-1, 2, 3), live, strict=True):
            _fits(whole, after, await task)
        for event in whole[:-1]:
            _fits(whole, event.sequence_number, await _rest(client(at), job, event.sequence_number))
        assert not at.planner.cancels


def _fits(whole: list[Any], after: int, rest: list[Any]) -> None:
    seen = [event for event in whole if event.sequence_number <= after]
    numbers = [event.sequence_number for event in (*seen, *rest)]
    assert numbers == sorted(set(numbers))
    text = "".join(event.delta for event in (*seen, *rest) if event.type == "response.output_text.delta")
    cut = max([event.sequence_number for event in seen if event.type == "response.output_text.delta"], default=3)
    assert (text[cut - 3 :], rest[-1].type) == (COLOURS.text[cut - 3 :], "response.completed")


async def _all(made: Any) -> list[Any]:
    return [event async for event in await made]


async def _rest(of: openai.AsyncOpenAI, job: str, after: int) -> list[Any]:
    return await _all(of.responses.retrieve(f"resp_{job}", stream=True, starting_after=after))


def test_numbers_are_the_answers_however_its_text_comes() -> None:
    """Every way of cutting a text into pieces ends with the same numbers; a reader who has some gets the others."""
    told = Told("j", 1, "m", Echo())
    answer = Answer(text="abcde")

    def events(pieces: list[str], after: int = -1) -> list[tuple[int, str]]:
        writer = ResponseWriter(told, after)
        parts = writer.begin("m", simulated=False) + b"".join(writer.text(piece) for piece in pieces) + writer.last(answer, Usage())
        found = [json.loads(line[6:]) for line in parts.decode().splitlines() if line.startswith("data: ")]
        return [(event["sequence_number"], event["type"]) for event in found]

    def beside(found: list[tuple[int, str]]) -> list[tuple[int, str]]:
        return [event for event in found if "delta" not in event[1]]

    whole = events(["abcde"])
    assert beside(events(["a", "bc", "de"])) == beside(whole)
    for after, _ in whole:
        left = answer.text[max(0, after - 3) :]
        assert events([left] if left else [], after) == [event for event in whole if event[0] > after]


async def test_what_was_stored_is_gone_on_from() -> None:
    """It is a conversation; what was not stored, or is not known, is refused by name."""
    async with world(script=colours) as at:
        first = await client(at).responses.create(**ASKED, store=True)
        conversation = job_of(at).conversation
        assert conversation == first.id
        await until(lambda: (found := at.ingress.door.journal.status(first.id[5:])) is not None and found.conversation is not None, "told")
        await client(at).responses.create(model="tiny:1", input="And three more?", previous_response_id=first.id)
        assert job_of(at).conversation == conversation
        alone = await client(at).responses.create(**ASKED)
        assert job_of(at).conversation is None
        with pytest.raises(openai.BadRequestError, match="store: true"):
            await client(at).responses.create(**ASKED, previous_response_id=alone.id)
        with pytest.raises(openai.NotFoundError, match="no response"):
            await client(at).responses.create(**ASKED, previous_response_id="resp_none")


async def test_a_failure_has_its_status_before_and_its_event_within() -> None:
    """As of chats; later it is a response that failed."""
    async with world(script=lambda _: Script(status=Status.FAILED, failure=BROKEN, chunks=("so",))) as at:
        with pytest.raises(openai.InternalServerError, match="it fell over"):
            await client(at).responses.create(**ASKED)
        made = await client(at).responses.create(**ASKED, background=True)
        await until(lambda: (found := at.ingress.door.journal.status(made.id[5:])) is not None and found.result is not None, "its end")
        found = await client(at).responses.retrieve(made.id)
        assert (found.status, found.error and found.error.message) == ("failed", "it fell over")
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"truncation": "auto"}, "truncation"),
            ({"tools": [{"type": "web_search"}]}, "tools.0"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
            ({"input": []}, "input"),
            ({"conversation": "c", "previous_response_id": found.id}, "conversation"),
        ]
        for more, name in wrong[:4]:
            answer = await at.client.post("/v1/responses", json=ASKED | more)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
