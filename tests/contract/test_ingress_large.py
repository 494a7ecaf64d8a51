"""Bodies and answers above the inline bound: callers send and get them as any others; records name where they lie."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from typing import Any

import pytest

from shared.contracts.base import INLINE_BYTES, Contract
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.job import HeldJob, Input, Job
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import TopicPartition
from shared.processing.blobs import Blobs
from tests.contract.test_ingress_chat import CHAT, body, held, memory, only_job, streamed_text
from tests.contract.test_ingress_disconnect import Connection, serving
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, until, world

TOOL = {"type": "function", "function": {"name": "look", "description": "At length. " * 200, "parameters": {"type": "object"}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "aGVsbG8h" * 100_000}}
TEXT = "A long answer. " * 10_000
LARGE: dict[str, dict[str, Any]] = {
    "a long conversation": {"messages": [{"role": "user", "content": "lorem ipsum " * 10_000}]},
    "many tools": {"messages": [{"role": "user", "content": "Hi"}], "tools": [TOOL] * 50},
    "a picture": {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]}]},
    "nearly all that is read": {"messages": [{"role": "user", "content": "x" * (8 * 1024 * 1024 - 200)}]},
}


def blobs(at: World) -> Blobs:
    return Blobs(at.log, at.planner.clock, at.topics, service="test", instance="t")


async def kept(at: World, job: Job) -> Input:
    assert isinstance(job, HeldJob)
    assert job.input_ref is not None
    return Input.model_validate_json(await blobs(at).fetch(job.tenant, job.input_ref.blob))


def records(log: MemoryLog, at: World) -> list[int]:
    """Sizes of all records but chunks."""
    return [
        len(record.value or b"")
        for topic in at.topics.all()
        if topic.name != at.topics.blobs
        for number in range(topic.partitions)
        for record in log.existing(TopicPartition(topic.name, number)).records
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", LARGE.values(), ids=LARGE)
async def test_a_large_request_is_answered(fields: dict[str, Any], stream: bool) -> None:
    """Its model reads all of it, and no record holds it."""
    log = memory()
    async with world(log) as at:
        response = await at.client.post(CHAT, json=body(**fields, stream=stream))
        assert response.status_code == 200, response.text[:300]
        given = await kept(at, at.planner.jobs[await only_job(at)].job)
        [turn], sent = given.messages, fields["messages"][0]["content"]
        assert turn.content == (sent if isinstance(sent, str) else sent[0]["text"])
        assert (len(given.tools), len(turn.images)) == (len(fields.get("tools", ())), int(not isinstance(sent, str)))
        assert max(records(log, at)) < INLINE_BYTES


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 100_000},
        {"texts": ["x" * 1_000] * 500},
        {"prompt": "x" * 100_000, "operation": "generate"},
        {"prompt": "x" * 100_000, "pattern": "auto", "input": {"among": ["vote"]}},
    ],
)
async def test_a_large_job_is_taken(fields: dict[str, Any]) -> None:
    """tutti's own dialect; sent again it is the same job, another body under its id is a conflict."""
    log = memory()
    async with world(log) as at:
        given = {"id": "mine", **fields}
        for _ in range(2):
            response = await at.client.post("/v1/jobs?wait=60", json=given)
            assert (response.status_code, response.json()["state"]) == (200, "settled")
        assert at.planner.submissions == 1
        other = await at.client.post("/v1/jobs", json={**given, "metadata": {"a": "b"}})
        assert other.status_code == 409
        read = await kept(at, at.planner.jobs["mine"].job)
        assert sum(len(turn.content) for turn in read.messages) + len(read.prompt or "") + sum(map(len, read.texts)) >= 100_000
        assert max(records(log, at)) < INLINE_BYTES


async def test_nothing_of_a_large_body_stays_while_somebody_waits() -> None:
    """Its bytes count until its job is on its way, and are free then; also of one that joins a job that was there before."""
    async with world(script=held) as at:
        door, chat, key = at.ingress.door, body(messages=[{"role": "user", "content": "x" * 1_000_000}]), {"idempotency-key": "k"}
        asked = [
            asyncio.create_task(at.client.post(CHAT, json=chat)),
            asyncio.create_task(at.client.post("/v1/jobs?wait=60", json={"prompt": "x" * 1_000_000})),
            asyncio.create_task(at.client.post(CHAT, json=chat, headers=key)),
        ]
        await until(lambda: len(at.planner.jobs) == 3, "the jobs")
        await until(lambda: all(door.journal.status(job) is not None for job in at.planner.jobs), "they are known")
        asked.append(asyncio.create_task(at.client.post(CHAT, json=chat, headers=key)))
        await until(lambda: len(door.register) == 4, "one joins")
        await until(lambda: door.bodies.size == 0, "their bytes are free")
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, ChatMessage) and len(one.content) == 1_000_000]
        for job in list(at.planner.jobs):
            await at.planner.release(job)
        assert [response.status_code for response in await asyncio.gather(*asked)] == [200] * 4


async def test_where_nothing_can_be_kept_a_large_request_is_503() -> None:
    """Within the time that requests wait for Kafka; a small one is answered meanwhile, and no job was begun."""
    log = memory()
    async with world(log, settings={"accept_seconds": 0.2}) as at:
        log.faults.away[at.topics.blobs] = 1.0
        response = await at.client.post(CHAT, json=body(messages=[{"role": "user", "content": "x" * 100_000}]))
        assert response.status_code == 503
        assert "retry-after" in response.headers
        assert not at.planner.jobs
        assert (await at.client.post(CHAT, json=body())).status_code == 200


def by_reference(made: dict[str, Answer]) -> Callable[[Job], Script]:
    return lambda job: Script(answer=made["answer"], chunks=(TEXT[:20],) if job.stream else ())


async def answering(at: World, made: dict[str, Answer], text: str = TEXT) -> None:
    """From now on jobs are answered by reference."""
    whole = Answer(text=text, model="tiny:1", node="node-1")
    blob = await blobs(at).store("default", whole.to_bytes())
    made["answer"] = whole.model_copy(update={"text": "", "blob": blob})


async def test_a_large_answer_reaches_whoever_asks() -> None:
    """Plain, streamed, waited for, looked at later, followed by its events, asked for again."""
    made: dict[str, Answer] = {}
    async with world(script=by_reference(made)) as at:
        await answering(at, made)
        plain = await at.client.post(CHAT, json=body())
        assert plain.json()["choices"][0]["message"]["content"] == TEXT
        streamed = await at.client.post(CHAT, json=body(stream=True))
        assert streamed_text(streamed.text) == TEXT
        waited = await at.client.post("/v1/jobs?wait=60", json={"prompt": "q", "stream": True})
        assert waited.json()["result"]["answer"]["text"] == TEXT
        job = waited.json()["id"]
        assert (await at.client.get(f"/v1/jobs/{job}")).json()["result"]["answer"]["text"] == TEXT
        followed = (await at.client.get(f"/v1/jobs/{job}/events")).text
        assert TEXT[20:] in followed
        for _ in range(2):
            keyed = await at.client.post(CHAT, json=body(), headers={"idempotency-key": "k"})
            assert keyed.json()["choices"][0]["message"]["content"] == TEXT
            named = await at.client.post("/v1/jobs?wait=60", json={"id": "mine", "prompt": "q"})
            assert named.json()["result"]["answer"]["text"] == TEXT
        assert named.headers["idempotent-replayed"] == "true"
        head = await at.client.head(f"/v1/jobs/{job}")
        assert (head.status_code, head.content) == (200, b"")


async def test_who_leaves_while_his_answer_is_fetched_cancels_nothing() -> None:
    """The job has ended: a cancel of it would be kept for days, for a job that never comes."""
    log, made = memory(), dict[str, Answer]()
    async with world(log, script=by_reference(made)) as at, serving(at) as port:
        door, cancelled = at.ingress.door, list[str]()
        await answering(at, made)
        log.delete([at.topics.blobs])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(door.submitter, "cancel", lambda job, *_: cancelled.append(job))
            connection = await Connection.post(port, CHAT, model="tiny:1")
            await until(lambda: door.bodies.held > 0, "it is being fetched")
            await connection.drop()
            await until(lambda: len(door.register) == 0, "he is gone")
            assert cancelled == []


async def test_an_answer_that_is_gone_is_told_as_gone() -> None:
    """410 for who wants it; the status still says how the job ended."""
    log, made = memory(), dict[str, Answer]()
    async with world(log, script=by_reference(made)) as at:
        await answering(at, made)
        blob = made["answer"].blob
        assert blob is not None
        log.existing(TopicPartition(at.topics.blobs, blob.partition)).delete_before(blob.last + 1)
        response = await at.client.post(CHAT, json=body())
        assert (response.status_code, response.json()["error"]["code"]) == (410, "blob_gone")
        shown = (await at.client.get(f"/v1/jobs/{await only_job(at)}")).json()
        assert (shown["state"], shown["result"]["status"]) == ("settled", "succeeded")
        assert shown["result"]["answer"]["blob"]["digest"] == blob.digest


def test_a_reference_is_no_part_of_what_callers_may_write() -> None:
    """Of no contract that is read from outside."""

    def names(model: type[Contract]) -> set[str]:
        return set(model.model_json_schema().get("$defs", {}))

    assert not {"BlobRef", "InputRef"} & names(Job)


HUGE = TEXT[:20] + "\N{MUSICAL KEYBOARD}" * 500_000
"""2 MB."""


class SlowClient:
    """Takes what is small, and nothing more until it is told to."""

    def __init__(self, at: World, method: str, path: str, content: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._requests = [{"type": "http.request", "body": content}]
        self.takes, self.pieces = asyncio.Event(), list[bytes]()
        target, _, query = path.partition("?")
        scope = {"type": "http", "method": method, "path": target, "raw_path": target.encode(), "query_string": query.encode()}
        self.done = asyncio.create_task(at.ingress.asgi()({**scope, "headers": list(headers)}, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._requests:
            await asyncio.Event().wait()
        return self._requests.pop()

    async def _send(self, message: Any) -> None:
        piece = message.get("body", b"")
        if len(piece) > 4_096:
            await self.takes.wait()
        self.pieces.append(piece)


@pytest.mark.parametrize("route", ["plain", "stream", "wait", "get", "events"])
async def test_large_answers_are_bounded_until_they_are_taken(route: str) -> None:
    """Each counts until its client has it, and goes out in pieces that are small; meanwhile others wait for room."""
    made: dict[str, Answer] = {}
    async with world(script=by_reference(made), settings={"bodies_bytes": 3 * 1024 * 1024, "accept_seconds": 0.5}) as at:
        await answering(at, made)
        job = (await at.client.post("/v1/jobs?wait=60", json={"prompt": "q"})).json()["id"]
        await answering(at, made, HUGE)
        second = (await at.client.post("/v1/jobs?wait=60", json={"prompt": "q"})).json()["id"]
        door = at.ingress.door
        assert (door.bodies.held, len(door.register)) == (0, 0)
        match route:
            case "plain" | "stream":
                slow = SlowClient(at, "POST", CHAT, json.dumps(body(stream=route == "stream")).encode())
            case "wait":
                slow = SlowClient(at, "POST", "/v1/jobs?wait=5", b'{"prompt":"q"}')
            case "get":
                slow = SlowClient(at, "GET", f"/v1/jobs/{second}")
            case _:
                slow = SlowClient(at, "GET", f"/v1/jobs/{second}/events", headers=((b"last-event-id", b"-1.1"),))
        await until(lambda: door.bodies.held > len(HUGE), "it is fetched")
        other = asyncio.create_task(at.client.post(CHAT, json=body()))
        shown = (await at.client.get(f"/v1/jobs/{second}")).json()
        assert shown["result"]["answer"]["blob"]["size"] > len(HUGE)
        assert (await at.client.get(f"/v1/jobs/{job}")).json()["result"]["answer"]["text"] == TEXT
        assert not other.done()
        slow.takes.set()
        await slow.done
        assert (await other).json()["choices"][0]["message"]["content"] == HUGE
        assert (door.bodies.held, len(door.register)) == (0, 0)
        assert len(b"".join(slow.pieces)) > len(HUGE)
        assert max(map(len, slow.pieces)) <= INLINE_BYTES
