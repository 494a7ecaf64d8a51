"""`/v1/chat/completions` as a client sees it: the whole ingress on the in-memory log with a fake planner."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.ingress.submit import is_generated
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.node import NodeModel
from shared.contracts.result import Status
from shared.kafka.memory.memory import MemoryLog
from shared.topics import partition_of
from tests.support.fake_planner import Script
from tests.support.ingress_world import BARE, World, node, opening, register, running, until, world

CHAT = "/v1/chat/completions"
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def memory() -> MemoryLog:
    return MemoryLog(SystemClock())


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny:1", "messages": [{"role": "user", "content": "hi"}], **fields}


def events(text: str) -> list[Any]:
    blocks = [block.removeprefix("data: ") for block in text.split("\n\n") if block.startswith("data: ")]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


def streamed_text(text: str) -> str:
    return "".join(
        choice["delta"].get("content") or "" for event in events(text) if isinstance(event, dict) for choice in event.get("choices", ())
    )


def answering(**fields: Any) -> Any:
    return lambda _job: Script(**fields)


def held(job: Job) -> Script:
    return Script(hold=True)


async def only_job(at: World) -> str:
    await until(lambda: len(at.planner.jobs) == 1, "the job arrives")
    return next(iter(at.planner.jobs))


async def test_a_plain_answer() -> None:
    """200 with text, usage and the job's id; the job lies on its home partition with trace, class and deadline."""
    async with world() as at:
        headers = {"x-tutti-class": "batch", "x-tutti-tenant": "team", "x-tutti-deadline-seconds": "30", "traceparent": TRACE}
        response = await at.client.post(CHAT, json=body(user="u"), headers=headers)
        assert response.status_code == 200
        answer = response.json()
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hello back", "refusal": None}
        assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        job = response.headers["x-tutti-job"]
        assert is_generated(job)
        seen = at.planner.jobs[job]
        assert (seen.priority_class, seen.job.tenant, seen.job.metadata) == (PriorityClass.BATCH, "team", {"user": "u"})
        assert seen.home == partition_of(job.encode(), at.topics.settings.home_partitions)
        assert seen.headers["traceparent"].decode() == TRACE, "the span above the job is its caller's"
        assert "key-name" not in seen.headers, "nobody needs a key"
        assert seen.reply is not None
        assert seen.reply.multiplex
        assert (seen.job.deadline_at, seen.job.deadline_seconds) == (None, 30.0)
        assert "x-tutti-simulated" not in response.headers


async def test_many_callers_each_get_their_own_answer() -> None:
    """Concurrent requests share batches and partitions and never answers."""
    script = lambda job: Script(text=job.messages[0].content if job.messages else "")
    async with world(script=script) as at:

        async def ask(number: int) -> None:
            response = await at.client.post(CHAT, json=body(messages=[{"role": "user", "content": f"echo {number}"}]))
            assert response.json()["choices"][0]["message"]["content"] == f"echo {number}"

        await asyncio.gather(*(ask(number) for number in range(200)))
        assert len(at.ingress.door.waiters) == 0
        assert not at.planner.cancels


async def test_a_stream() -> None:
    """Role, deltas as they come, finish reason, usage when asked for, end mark."""
    chunks = ("hel", "lo ", "back")
    async with world(script=answering(chunks=chunks)) as at:
        response = await at.client.post(CHAT, json=body(stream=True, stream_options={"include_usage": True}))
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-tutti-job"] in at.planner.jobs
        found = events(response.text)
        assert found[0]["choices"][0]["delta"]["role"] == "assistant"
        assert streamed_text(response.text) == "hello back"
        assert found[-3]["choices"][0]["finish_reason"] == "stop"
        assert found[-2]["usage"]["total_tokens"] == 8
        assert found[-1] == "[DONE]"


@pytest.mark.parametrize("simulated", [True, False])
async def test_a_simulated_answer_says_so(simulated: bool) -> None:
    """In a header and in the fingerprint, streamed or not; a real one does not."""
    nodes = (node("node-1", simulated=simulated),)
    async with world(script=answering(simulated=simulated, chunks=("hello",)), nodes=nodes) as at:
        plain = await at.client.post(CHAT, json=body())
        streamed = await at.client.post(CHAT, json=body(stream=True))
        for response in (plain, streamed):
            assert response.headers.get("x-tutti-simulated") == ("true" if simulated else None)
        fingerprint = "simulated" if simulated else None
        assert plain.json()["system_fingerprint"] == fingerprint
        assert events(streamed.text)[-2]["system_fingerprint"] == fingerprint


async def test_a_retry_that_repeats_the_text_is_seamless() -> None:
    """Attempt 2 says the same again from the beginning: the client sees the text once."""
    async with world(script=held) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True)))
        job = await only_job(at)
        await at.planner.send(at.planner.chunks(job, ("hello",)))
        await at.planner.send(at.planner.chunks(job, ("hello ", "back"), attempt=2))
        await at.planner.release(job)
        assert streamed_text((await asking).text) == "hello back"


async def test_a_stream_that_contradicts_itself_fails_clearly() -> None:
    """What was sent cannot be taken back: an error event, and the job is cancelled."""
    async with world(script=held) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body(stream=True)))
        job = await only_job(at)
        caller = next(iter(at.ingress.door.waiters.callers()))
        await at.planner.send(at.planner.chunks(job, ("hello",)))
        await until(lambda: caller._stream is not None and caller._stream._taken.length == 5, "the text is sent")
        await at.planner.send(at.planner.chunks(job, ("other",), attempt=2))
        found = events((await asking).text)
        assert found[-2]["error"]["code"] == "stream_conflict"
        assert found[-1] == "[DONE]"
        await until(lambda: job in at.planner.cancels, "the cancel")


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(status=Status.FAILED, failure=Failure(kind=FailureKind.NO_NODE, message="no", missing=("gpu",))), 503, "no_node"),
        (Script(status=Status.FAILED, failure=Failure(kind=FailureKind.MODEL_ERROR, message="broke")), 502, "model_error"),
        (Script(status=Status.EXPIRED), 504, "deadline"),
        (Script(status=Status.FAILED, failure=Failure(kind=FailureKind.BAD_REQUEST, message="bad schema")), 400, "bad_request"),
    ],
)
async def test_failures_of_jobs_have_their_status(script: Script, status: int, code: str) -> None:
    """Typed JSON in the dialect, with the job's id."""
    async with world(script=lambda _job: script) as at:
        response = await at.client.post(CHAT, json=body())
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.headers["x-tutti-job"] in at.planner.jobs
        assert ("retry-after" in response.headers) == (status == 503)


def _limited(limit: str, retry_after_seconds: float | None = None) -> Script:
    failure = Failure(kind=FailureKind.LIMIT, message="it is reached", limit=limit, retry_after_seconds=retry_after_seconds)
    return Script(status=Status.FAILED, failure=failure)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (_limited("tenant.tokens", 7_200.2), (429, "insufficient_quota", "insufficient_quota", "7201")),
        (_limited("tenant.calls"), (429, "insufficient_quota", "insufficient_quota", None)),
        (_limited("tenant.jobs", 5.0), (429, "rate_limit_error", "rate_limit_exceeded", "5")),
        (_limited("tenant", 5.0), (503, "server_error", "budget_unavailable", "5")),
        (_limited("tokens"), (400, "invalid_request_error", "limit", None)),
        (_limited("wall_seconds"), (504, "server_error", "limit", None)),
    ],
)
async def test_reached_limits_have_openais_codes(script: Script, expected: tuple[int, str, str, str | None], stream: bool) -> None:
    """A spent day is a quota, and clients are told not to hammer; too much at once is a rate; a job's own limit is its caller's."""
    async with world(script=lambda _job: script) as at:
        response = await at.client.post(CHAT, json=body(stream=stream))
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["code"], response.headers.get("retry-after")) == expected
        assert error["limit"] == (script.failure and script.failure.limit)
        assert response.headers.get("x-should-retry") == ("false" if error["code"] == "insufficient_quota" else None)


async def test_tools_and_thinking_reach_the_client() -> None:
    """Tool calls in OpenAI's form, plain and streamed."""
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    async with world(script=answering(answer=Answer(tool_calls=(call,), thinking="hm"))) as at:
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        plain = (await at.client.post(CHAT, json=body(tools=tools))).json()["choices"][0]
        assert plain["finish_reason"] == "tool_calls"
        assert plain["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
        streamed = events((await at.client.post(CHAT, json=body(tools=tools, stream=True))).text)
        assert any(event["choices"][0]["delta"].get("tool_calls") for event in streamed[:-1])


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"model":"tiny:1"}', 400, "invalid_input"),
        (b'{"model":"tiny:1","messages":[{"role":"user","content":"x"}],"bogus":1}', 400, "unknown_field"),
        (b'{"model":"tiny:1","messages":[{"role":"user","content":"x"}],"n":3}', 400, "unsupported"),
        (b'{"model":"tiny:1","messages":' + b"[" * 40, 413, "too_large"),
        (b"x" * 9_000_000, 413, "too_large"),
    ],
)
async def test_bad_bodies_are_refused_before_anything_is_queued(content: bytes, status: int, code: str) -> None:
    """400 and 413 in OpenAI's shape; nothing reaches Kafka and nobody is left waiting."""
    async with world() as at:
        response = await at.client.post(CHAT, content=content)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.json()["error"]["type"] == "invalid_request_error"
        assert len(at.ingress.door.waiters) == 0
        assert not at.planner.jobs


async def test_an_unknown_model_is_404_with_the_known_ones() -> None:
    """Plain names and patterns alike."""
    async with world(nodes=(node("a", "tiny:1", "llama3:latest"),)) as at:
        for name in ("gpt-9", "tutti/nonsense"):
            response = await at.client.post(CHAT, json=body(model=name))
            assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
            assert response.json()["error"]["known_models"] == ["auto", "llama3:latest", "tiny:1", *(f"tutti/{name}" for name in BARE)]
        assert (await at.client.post(CHAT, json=body(model="llama3"))).status_code == 200
        assert [seen.job.model for seen in at.planner.jobs.values()] == ["llama3:latest"]


async def test_a_model_that_cannot_chat_is_refused() -> None:
    """It would wait for ever: 400 that names the model, for chat and for jobs; embedding with it is fine."""
    embedder = NodeModel(name="embedder:1", operations=("embed",))
    nodes = (node("a", capabilities=("chat", "embed")).model_copy(update={"models": (embedder,)}),)
    async with world(nodes=nodes) as at:
        response = await at.client.post(CHAT, json=body(model="embedder:1"))
        assert (response.status_code, response.json()["error"]["param"]) == (400, "model")
        assert (await at.client.post("/v1/jobs", json={"prompt": "x", "model": "embedder:1"})).status_code == 400
        assert (await at.client.post("/v1/jobs", json={"texts": ["x"], "model": "embedder:1"})).status_code == 202


@pytest.mark.parametrize("model", ["auto", "tutti/auto"])
async def test_auto_models(model: str) -> None:
    """Both spellings let the cluster choose."""
    async with world() as at:
        assert (await at.client.post(CHAT, json=body(model=model))).status_code == 200
        assert [seen.job.model for seen in at.planner.jobs.values()] == ["auto"]


async def test_without_a_node_an_interactive_caller_gets_503_soon() -> None:
    """It says what is missing, and nothing was queued; a batch caller's job is queued all the same."""
    async with world(nodes=()) as at:
        response = await at.client.post(CHAT, json=body())
        assert (response.status_code, response.json()["error"]["missing"]) == (503, ["a live node"])
        assert "retry-after" in response.headers
        assert not at.planner.jobs
        assert (await at.client.post(CHAT, json=body(), headers={"x-tutti-class": "batch"})).status_code == 200


async def test_a_node_that_appears_in_time_is_used() -> None:
    """The short wait is there for a cluster that is just starting."""
    async with world(nodes=(), settings={"no_node_wait_seconds": 5.0}) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body()))
        await register(at.log, at.topics, node())
        assert (await asking).status_code == 200


async def test_the_deadline_ends_the_wait_even_without_a_planner() -> None:
    """504 after the deadline and its grace."""
    async with world(script=answering(silent=True), settings={"deadline_grace_seconds": 0.05}) as at:
        response = await at.client.post(CHAT, json=body(), headers={"x-tutti-deadline-seconds": "0.1"})
        assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline")
        assert response.headers["x-tutti-job"] in at.planner.jobs


async def test_too_many_waiting_callers_are_429() -> None:
    """The bound per instance; Retry-After says when."""
    async with world(script=held, settings={"in_flight": 3}) as at:
        waiting = [asyncio.create_task(at.client.post(CHAT, json=body())) for _ in range(3)]
        await until(lambda: len(at.planner.jobs) == 3, "three jobs")
        response = await at.client.post(CHAT, json=body())
        assert (response.status_code, response.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(response.headers["retry-after"]) >= 1
        for job in list(at.planner.jobs):
            await at.planner.release(job)
        assert {(await task).status_code for task in waiting} == {200}


async def test_a_backlog_that_cannot_be_met_is_429() -> None:
    """By measured capacity: 30 settled in the last second, 3,000 before us, 10 s to go."""
    async with world(settings={"backlog_seconds": 1_000.0}) as at:
        backlog = at.ingress.door.backlog
        for _ in range(3_030):
            backlog.on_accepted(PriorityClass.INTERACTIVE, None, None)
        now = SystemClock().monotonic()
        backlog.observe({}, now)
        for _ in range(30):
            backlog.on_settled(PriorityClass.INTERACTIVE)
        backlog.observe({}, now + 1.0)
        response = await at.client.post(CHAT, json=body(), headers={"x-tutti-deadline-seconds": "10"})
        assert response.status_code == 429
        assert 30 <= int(response.headers["retry-after"]) <= 200
        assert (await at.client.post(CHAT, json=body(), headers={"x-tutti-deadline-seconds": "3000"})).status_code == 200


@pytest.mark.parametrize("absence", ["waits", "fails"])
async def test_kafka_away_is_503_and_work_goes_on_when_it_is_back(absence: Any) -> None:
    """Bounded wait, Retry-After, not ready; afterwards everything works again and nothing was cancelled that succeeded."""
    log = memory()
    async with world(log, settings={"accept_seconds": 0.2}) as at:
        log.go_away(absence)
        response = await at.client.post(CHAT, json=body())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "log_unavailable")
        assert "retry-after" in response.headers
        assert not at.ingress.readiness().ready
        assert len(at.ingress.door.waiters) == 0
        log.come_back()

        async def works() -> bool:
            return (await at.client.post(CHAT, json=body())).status_code == 200

        for _ in range(50):
            if await works():
                break
        assert await works()
        await until(lambda: at.ingress.readiness().ready, "ready again")


async def test_stopping_lets_callers_finish() -> None:
    """From `stop` on new callers are refused, waiting ones get their answer."""
    async with world(script=held) as at:
        asking = asyncio.create_task(at.client.post(CHAT, json=body()))
        job = await only_job(at)
        at.ingress.door.leaving = True
        refused = await at.client.post(CHAT, json=body())
        assert refused.status_code == 503
        await at.planner.release(job)
        assert (await asking).status_code == 200


async def test_stopping_in_the_end_refuses_who_still_waits_and_cancels() -> None:
    """After the grace period the caller gets 503 and his job is cancelled: nobody waits for it; a detached one goes on."""
    log = memory()
    async with world(log, script=held) as at:
        second = opening(at, "test-2", grace_seconds=2.1)
        async with running(second) as client:
            await until(lambda: bool(second.door.registry.catalogue.models), "nodes")
            asking = asyncio.create_task(client.post(CHAT, json=body()))
            detached = asyncio.create_task(client.post(CHAT, json=body(), headers={"x-tutti-detach": "true"}))
            await until(lambda: len(at.planner.jobs) == 2, "both jobs")
        response, other = await asking, await detached
        assert (response.status_code, response.json()["error"]["code"]) == (503, "leaving")
        assert other.status_code == 503
        await until(lambda: bool(at.planner.cancels), "the cancel")
        assert list(at.planner.cancels) == [response.headers["x-tutti-job"]]
