"""Streams of `/v1/chat/completions` and their heads: what fails before the first piece has a status, what fails later is an event."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.ingress.dialects.openai.responses import ChunkWriter
from services.ingress.replies.waiters import Caller
from services.ingress.status.notes import StepNotes
from shared.contracts import event as events_of
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.result import Status
from tests.contract.test_ingress_chat import CHAT, body, events, held, only_job, streamed_text
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, until, world

AT_ONCE = {"head_seconds": 0.0}
BROKE = Failure(kind=FailureKind.MODEL_ERROR, message="the model broke")


def only_caller(at: World) -> Caller:
    return next(iter(at.ingress.door.waiters.callers()))


async def fail(at: World, job: str, failure: Failure = BROKE) -> None:
    at.planner.jobs[job].script = Script(status=Status.FAILED, failure=failure)
    await at.planner.release(job)


def failing(kind: FailureKind) -> Any:
    missing = ("gpu",) if kind is FailureKind.NO_NODE else ()
    limit = "tenant.tokens" if kind is FailureKind.LIMIT else None
    failure = Failure(kind=kind, message="it went wrong", missing=missing, limit=limit)
    return lambda _job: Script(status=Status.FAILED, failure=failure)


@pytest.mark.parametrize("kind", list(FailureKind))
async def test_before_the_first_piece_a_stream_fails_as_a_plain_request(kind: FailureKind) -> None:
    """Every kind of failure: the same status, the same body, the same advice when to come again."""
    async with world(script=failing(kind)) as at:
        plain = await at.client.post(CHAT, json=body())
        streamed = await at.client.post(CHAT, json=body(stream=True))
        assert plain.status_code >= 400
        assert (streamed.status_code, streamed.json()) == (plain.status_code, plain.json())
        for name in ("content-type", "retry-after", "x-should-retry"):
            assert streamed.headers.get(name) == plain.headers.get(name)
        assert streamed.headers["x-tutti-job"] in at.planner.jobs


@pytest.mark.parametrize(
    "fields", [{"messages": []}, {"bogus": 1}, {"n": 2}, {"model": "gpt-9"}, {"stop": 7}, {"response_format": {"type": "json_schema"}}]
)
async def test_a_request_that_is_refused_is_refused_alike_when_streamed(fields: dict[str, Any]) -> None:
    """Refusals before anything is queued have one body, too."""
    async with world() as at:
        plain = await at.client.post(CHAT, json=body(**fields))
        streamed = await at.client.post(CHAT, json=body(**{**fields, "stream": True}))
        assert (streamed.status_code, streamed.json()) == (plain.status_code, plain.json())
        assert plain.status_code in (400, 404)


async def test_a_failure_after_the_stream_began_is_an_event() -> None:
    """The status is out already: the error comes in the stream, in the dialect's shape."""
    async with world(script=held) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True)))
        job = await only_job(at)
        caller = only_caller(at)
        await at.planner.send(at.planner.chunks(job, ("hello",)))
        await until(lambda: caller.quiet_since is not None, "the head is sent")
        await fail(at, job)
        response = await asking
        assert response.status_code == 200
        error = events(response.text)[-2]["error"]
        assert (error["code"], error["type"], error["message"]) == ("model_error", "server_error", "the model broke")


async def test_a_head_that_has_waited_long_enough_goes_out_with_a_comment() -> None:
    """No piece in time: 200, a comment that proxies see, and what fails then is an event."""
    async with world(script=held, settings={"head_seconds": 0.05}) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True)))
        job = await only_job(at)
        caller = only_caller(at)
        await until(lambda: caller.quiet_since is not None, "the head is sent")
        await fail(at, job)
        response = await asking
        assert response.status_code == 200
        assert response.text.startswith(": keep-alive\n\n")
        assert [event if event == "[DONE]" else event["error"]["code"] for event in events(response.text)] == ["model_error", "[DONE]"]


async def test_silence_is_filled_with_comments() -> None:
    """Heartbeats keep proxies from closing a silent stream and are no events."""
    async with world(script=held, settings={"heartbeat_seconds": 0.05, **AT_ONCE}) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True)))
        job = await only_job(at)
        caller = only_caller(at)
        spoke: set[float | None] = set()

        def spoke_often() -> bool:
            spoke.add(caller.quiet_since)
            return len(spoke) >= 4

        await until(spoke_often, "the head and two heartbeats")
        await at.planner.release(job)
        text = (await asking).text
        assert text.count(": keep-alive\n\n") >= 3
        assert streamed_text(text) == "hello back"


@pytest.mark.parametrize("settings", [AT_ONCE, {}])
@pytest.mark.parametrize("chunks", [(), ("hello ", "back")])
async def test_a_stream_has_one_model_name(settings: dict[str, Any], chunks: tuple[str, ...]) -> None:
    """With `auto` the name is known with the first piece, or at the end: every chunk has it, the first one too."""
    answer = Answer(text="hello back", model="tiny:1", node="node-1")
    async with world(script=lambda _job: Script(chunks=chunks, answer=answer), settings=settings) as at:
        response = await at.client.post(CHAT, json=body(model="auto", stream=True, stream_options={"include_usage": True}))
        assert {event["model"] for event in events(response.text)[:-1]} == {"tiny:1"}
        assert streamed_text(response.text) == "hello back"
        assert events(response.text)[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}


async def test_a_client_that_leaves_before_the_head_takes_its_job_with_it() -> None:
    """Nobody waits any longer: the job is cancelled, as after the head."""
    async with world(script=held) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True)))
        job = await only_job(at)
        asking.cancel()
        await until(lambda: job in at.planner.cancels, "the cancel")


async def test_a_crash_after_the_head_ends_the_stream_in_its_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error event without the crash's text, and the end mark: no client waits for ever, none takes half an answer for a whole one."""

    def crash(*_: object) -> bytes:
        raise RuntimeError("SECRET")

    monkeypatch.setattr(ChunkWriter, "text", crash)
    async with world(script=lambda _job: Script(chunks=("hello ",))) as at:
        response = await at.client.post(CHAT, json=body(stream=True))
        assert response.status_code == 200
        assert events(response.text)[-2]["error"]["code"] == "internal"
        assert events(response.text)[-1] == "[DONE]"
        assert "SECRET" not in response.text


CHAIN = {"model": "tutti/chain", "input": {"steps": [{"name": "draft", "template": "{input}"}, {"name": "last", "template": "{draft}"}]}}
SECRET = "nobody may read this"


async def answered(at: World, job: str, agent: str) -> None:
    """A step of the job is asked for, fails once, and is answered."""
    seen, step = at.planner.jobs[job], agent[0] * 32
    base: dict[str, Any] = {"epoch": at.planner.epochs[seen.home], "job": job, "step": step}
    failure = Failure(kind=FailureKind.NODE_LOST, message=SECRET)
    facts = [
        events_of.StepAsked(**base, at=10.0, path="0.1", agent=agent, model="tiny:1"),
        events_of.AttemptFailed(**base, at=10.5, attempt=1, failure=failure, retry_after_seconds=0.1),
        events_of.StepAnswered(**base, at=11.25, attempt=2, node="node-2", answer=Answer(text=SECRET)),
    ]
    await at.planner.send([at.planner.event(seen.home, fact) for fact in facts])


def comments(text: str) -> list[str]:
    return [block[2:] for block in text.split("\n\n") if block.startswith(": ") and block != ": keep-alive"]


@pytest.mark.parametrize("settings", [AT_ONCE, {}])
async def test_what_becomes_of_a_patterns_steps_is_told_in_comments(settings: dict[str, Any]) -> None:
    """To its own caller only, before the text; clients see the events that they would see without them."""
    async with world(script=held, settings=settings) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True, **CHAIN)))
        job = await only_job(at)
        other = asyncio.create_task(at.client.post(CHAT, json=body(stream=True, **CHAIN)))
        await until(lambda: len(at.planner.jobs) == 2, "another's job")
        await answered(at, job, "draft\n\ndata: {}")
        await until(lambda: len(at.ingress.door.journal.after(job, -1)) >= 5, "its events")
        for each in at.planner.jobs:
            await at.planner.release(each)
        text, others = (await asking).text, (await other).text
        assert comments(text) == [
            "step draft data: {} failed (node_lost), is tried again",
            "step draft data: {} answered by node-2 in 1.2 s",
        ]
        assert comments(others) == []
        assert SECRET not in text
        assert streamed_text(text) == streamed_text(others) == "hello back"
        assert len(at.ingress.door.followers) == 0


async def test_a_single_step_is_told_nothing_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text is its progress: nobody follows the job, nothing is read twice."""

    def crash(*_: object) -> None:
        raise AssertionError("nobody looks")

    monkeypatch.setattr(StepNotes, "news", crash)
    async with world(script=held, settings=AT_ONCE) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True)))
        job = await only_job(at)
        await answered(at, job, "draft")
        await until(lambda: len(at.ingress.door.journal.after(job, -1)) >= 5, "its events")
        assert len(at.ingress.door.followers) == 0
        await at.planner.release(job)
        assert comments((await asking).text) == []


async def test_a_comment_goes_out_while_the_pattern_works() -> None:
    """Not with the end: the caller is woken by the step's answer."""
    async with world(script=held, settings=AT_ONCE) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True, **CHAIN)))
        job = await only_job(at)
        caller = only_caller(at)
        await until(lambda: caller.quiet_since is not None, "the head is sent")
        before = caller.quiet_since
        await answered(at, job, "draft")
        await until(lambda: caller.quiet_since != before, "something was sent")
        await at.planner.release(job)
        assert len(comments((await asking).text)) == 2
