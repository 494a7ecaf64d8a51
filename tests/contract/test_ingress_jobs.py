"""`/v1/jobs`, `/v1/models` and the OpenAPI page: the whole ingress on the in-memory log with a fake planner."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NamedTuple

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from shared.clock import SystemClock
from shared.contracts import event as events
from shared.contracts.base import PriorityClass
from shared.contracts.job import Job
from shared.contracts.node import NodeModel
from shared.contracts.result import Result, Status
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition
from shared.topics import partition_of
from tests.support.fake_planner import Script
from tests.support.ingress_world import BARE, World, node, opening, running, until, world


def memory() -> MemoryLog:
    return MemoryLog(SystemClock())


def held(_job: Job) -> Script:
    return Script(hold=True)


class Event(NamedTuple):
    id: str
    name: str
    data: dict[str, Any]


def parsed(text: str) -> list[Event]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append(Event(fields["id"], fields["event"], json.loads(fields["data"])))
    return found


async def submit(at: World, **body: Any) -> str:
    response = await at.client.post("/v1/jobs", json={"prompt": "hello", **body})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def status(client: httpx.AsyncClient, job: str) -> dict[str, Any]:
    response = await client.get(f"/v1/jobs/{job}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def in_state(client: httpx.AsyncClient, job: str, state: str) -> dict[str, Any]:
    for _ in range(1_000):
        response = await client.get(f"/v1/jobs/{job}")
        if response.status_code == 200 and response.json()["state"] == state:
            return dict(response.json())
        await SystemClock().sleep(0.005)
    raise AssertionError(f"{job} is not {state}: {response.text}")


async def test_the_smallest_job() -> None:
    """202 with id and Location when Kafka has it; then its status tells state, steps and result."""
    async with world() as at:
        response = await at.client.post("/v1/jobs", json={"prompt": "hello"})
        assert response.status_code == 202
        job = response.json()["id"]
        assert response.headers["location"] == f"/v1/jobs/{job}"
        assert response.headers["x-tutti-job"] == job
        found = await in_state(at.client, job, "settled")
        assert found["class"] == "standard"
        assert found["home"] == partition_of(job.encode(), at.topics.settings.home_partitions)
        assert found["result"]["answer"]["text"] == "hello back"
        assert [step["state"] for step in found["steps"]] == ["answered"]
        assert at.planner.jobs[job].reply is None


async def test_what_the_body_and_the_headers_say() -> None:
    """Class and tenant of the body win over the headers; without them the headers count; the rest is the Job contract."""
    async with world() as at:
        headers = {"x-tutti-class": "interactive", "x-tutti-tenant": "from-header", "x-tutti-deadline-seconds": "60"}
        own = {"prompt": "x", "class": "batch", "tenant": "own", "id": "mine-1", "metadata": {"k": "v"}}
        assert (await at.client.post("/v1/jobs", json=own, headers=headers)).json()["id"] == "mine-1"
        other = (await at.client.post("/v1/jobs", json={"prompt": "y"}, headers=headers)).json()["id"]
        await until(lambda: len(at.planner.jobs) == 2, "both jobs")
        first, second = at.planner.jobs["own/mine-1"], at.planner.jobs[other]
        assert (first.priority_class, first.job.tenant, first.job.metadata) == (PriorityClass.BATCH, "own", {"k": "v"})
        assert (second.priority_class, second.job.tenant) == (PriorityClass.INTERACTIVE, "from-header")
        assert (second.job.deadline_at, second.job.deadline_seconds) == (None, 60.0)


async def test_waiting_for_the_end() -> None:
    """`?wait=` answers 200 with the result when the job ends in time, else 202."""
    async with world() as at:
        response = await at.client.post("/v1/jobs?wait=5", json={"prompt": "hello"})
        assert (response.status_code, response.json()["state"]) == (200, "settled")
        at.planner.script = held
        response = await at.client.post("/v1/jobs?wait=0.05", json={"prompt": "hello"})
        assert response.status_code == 202
        assert (await at.client.post("/v1/jobs?wait=forever", json={"prompt": "hello"})).status_code == 400


@pytest.mark.parametrize(
    ("content", "status_code", "code"),
    [
        (b"nonsense", 400, "invalid_json"),
        (b"{}", 400, "invalid_input"),
        (b'{"prompt":"x","promt":"y"}', 400, "unknown_field"),
        (b'{"prompt":"x","class":"vip"}', 400, "invalid_input"),
        (b'{"prompt":"x","pattern":"chain"}', 400, "invalid_input"),
        (b'{"prompt":"' + b"x" * 9_000_000 + b'"}', 413, "too_large"),
        (b'{"prompt":"' + b"x" * 70_000 + b'","pattern":"chain","chain":[{"name":"a","template":"{input}"}]}', 413, "too_large"),
        (b'{"operation":"chat","input_ref":{"blob":{"digest":"0"}}}', 400, "unknown_field"),
        (b'{"prompt":"x","format":' + b'{"a":' * 40, 413, "too_large"),
        (b'{"prompt":"x","model":"gpt-9"}', 404, "model_not_found"),
        (b'{"prompt":"x","capability":"painting"}', 400, "unknown_capability"),
        (b'{"prompt":"x","id":"j_1"}', 400, "invalid_input"),
        (b'{"prompt":"x","id":"k_1"}', 400, "invalid_input"),
        (b'{"prompt":"x","id":"s_1"}', 400, "invalid_input"),
    ],
)
async def test_bad_submissions(content: bytes, status_code: int, code: str) -> None:
    """Typed JSON in tutti's own dialect; nothing is queued; the value is never repeated."""
    async with world() as at:
        response = await at.client.post("/v1/jobs", content=content)
        assert (response.status_code, response.json()["error"]["code"]) == (status_code, code)
        assert "xxxx" not in response.text
        assert not at.planner.jobs


async def test_a_fallback_model_that_is_known_is_enough() -> None:
    """404 only when no candidate is known."""
    async with world() as at:
        job = await submit(at, model="gpt-9", fallback_models=["tiny:1"])
        await until(lambda: job in at.planner.jobs, "the job")
        assert at.planner.jobs[job].job.model == "gpt-9"


async def test_cancelling() -> None:
    """The cancel goes to the job's home; when the job has ended already nothing is sent."""
    async with world(script=held) as at:
        job = await submit(at)
        await in_state(at.client, job, "running")
        response = await at.client.delete(f"/v1/jobs/{job}")
        assert (response.status_code, response.json()["cancel_requested"]) == (202, True)
        found = await in_state(at.client, job, "settled")
        assert found["result"]["status"] == "cancelled"
        assert at.planner.cancels == {job: at.planner.jobs[job].home}
        again = await at.client.delete(f"/v1/jobs/{job}")
        assert (again.status_code, again.json()["state"]) == (200, "settled")


async def test_unknown_jobs() -> None:
    """404; but an id that an ingress made can be cancelled before its first event is known."""
    async with world() as at:
        for method, path in (("GET", "/v1/jobs/nobody"), ("DELETE", "/v1/jobs/nobody"), ("GET", "/v1/jobs/nobody/events")):
            response = await at.client.request(method, path)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "job_not_found")
        early = "j_01JDAAAAAAAAAAAAAAAAAAAAAA"
        assert (await at.client.delete(f"/v1/jobs/{early}")).status_code == 202
        await until(lambda: early in at.planner.cancels, "the cancel")
        assert at.planner.cancels[early] == partition_of(early.encode(), at.topics.settings.home_partitions)


async def test_the_event_stream() -> None:
    """The history in order, ended by job_settled; ids rise."""
    async with world() as at:
        job = await submit(at)
        found = parsed((await at.client.get(f"/v1/jobs/{job}/events")).text)
        assert [event.name for event in found] == ["job_accepted", "step_asked", "step_claimed", "step_answered", "job_settled"]
        assert found[-1].data["result"]["answer"]["text"] == "hello back"
        identifiers = [tuple(int(part) for part in event.id.split(".")) for event in found]
        assert identifiers == sorted(set(identifiers))


async def test_the_event_stream_follows_a_running_job() -> None:
    """Connected before the end, the client hears of it."""
    async with world(script=held) as at:
        job = await submit(at)
        following = asyncio.create_task(at.client.get(f"/v1/jobs/{job}/events"))
        await until(lambda: len(at.ingress.door.followers) == 1, "somebody follows")
        await at.planner.release(job)
        assert parsed((await following).text)[-1].name == "job_settled"
        await until(lambda: len(at.ingress.door.followers) == 0, "nobody follows any longer")


async def test_a_broken_event_stream_is_resumed() -> None:
    """With Last-Event-ID exactly the rest comes, text included; without one, or with nonsense, everything."""
    async with world(script=lambda _job: Script(chunks=("hello ", "back"))) as at:
        job = await submit(at, stream=True)
        await in_state(at.client, job, "settled")
        url = f"/v1/jobs/{job}/events"
        whole = parsed((await at.client.get(url)).text)
        text = "".join(event.data["text"] for event in whole if event.name == "chunk")
        assert text == "hello back"
        for number, event in enumerate(whole[:-1]):
            rest = parsed((await at.client.get(url, headers={"last-event-id": event.id})).text)
            assert [each.name for each in rest] == [each.name for each in whole[number + 1 :]]
            assert [each.data for each in rest] == [each.data for each in whole[number + 1 :]]
        assert parsed((await at.client.get(url, headers={"last-event-id": "junk"})).text) == whole


async def test_chunks_of_a_streamed_job() -> None:
    """They come as they arrive, each with its place in the text, and what was lost comes with the end."""
    async with world(script=held) as at:
        job = await submit(at, stream=True)
        following = asyncio.create_task(at.client.get(f"/v1/jobs/{job}/events"))
        await until(lambda: job in at.planner.jobs, "the job")
        await at.planner.send(at.planner.chunks(job, ("hel",)))
        follow = at.ingress.door.waiters.following(job)
        assert follow is not None
        await until(lambda: follow.text == "hel", "the first chunk")
        await until(lambda: len(at.ingress.door.followers) == 1, "somebody follows")
        await at.planner.release(job)
        chunks = [event.data for event in parsed((await following).text) if event.name == "chunk"]
        assert "".join(chunk["text"] for chunk in chunks) == "hello back"
        assert chunks[0] == {"type": "chunk", "job": job, "offset": 0, "text": "hel"}


async def test_events_of_stale_epochs_are_not_shown() -> None:
    """A planner that has lost the partition writes into the log: its word does not count (ARCHITECTURE, planner protocol)."""
    async with world(script=held) as at:
        job = await submit(at)
        await in_state(at.client, job, "running")
        seen = at.planner.jobs[job]
        stale = at.planner.epochs[seen.home]
        await at.planner.begin(seen.home)
        lie = Result(job=job, status=Status.FAILED, accepted_at=0, finished_at=0)
        zombie = events.JobSettled(epoch=stale, job=job, at=0, result=lie)
        await at.planner.send([at.planner.event(seen.home, zombie)])
        await at.planner.release(job)
        assert (await in_state(at.client, job, "settled"))["result"]["status"] == "succeeded"


async def test_another_instance_knows_the_job_from_its_events() -> None:
    """Also one that starts after the job has ended: it looks back a bounded way. Its replies go nowhere else."""
    log = memory()
    async with world(log) as at:
        job = await submit(at)
        await in_state(at.client, job, "settled")
        second = opening(at, "test-2")
        async with running(second) as client:
            assert (await in_state(client, job, "settled"))["result"]["answer"]["text"] == "hello back"
            assert len(parsed((await client.get(f"/v1/jobs/{job}/events")).text)) == 5
            response = await client.delete(f"/v1/jobs/{job}")
            assert response.status_code == 200


async def test_two_instances_that_share_a_partition_get_their_own_replies() -> None:
    """Correlations tell whose a reply is."""
    log = memory()
    async with world(log, script=lambda job: Script(text=job.messages[0].content if job.messages else "")) as at:
        twin = opening(at)
        async with running(twin) as client:
            await until(lambda: bool(twin.door.registry.catalogue.models), "nodes")

            async def ask(which: httpx.AsyncClient, text: str) -> str:
                content = {"messages": [{"role": "user", "content": text}]}
                response = await which.post("/v1/chat/completions", json=content)
                assert response.status_code == 200, response.text
                return str(response.json()["choices"][0]["message"]["content"])

            texts = [f"{name} {number}" for name in ("one", "two") for number in range(20)]
            assert await asyncio.gather(*(ask(at.client if text < "two" else client, text) for text in texts)) == texts


@pytest.mark.parametrize("absence", ["waits", "fails"])
async def test_a_job_is_not_accepted_without_kafka(absence: Any) -> None:
    """202 means durable: without an acknowledgement it is 503."""
    log = memory()
    async with world(log, settings={"accept_seconds": 0.2}) as at:
        log.go_away(absence)
        response = await at.client.post("/v1/jobs", json={"prompt": "hello"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "log_unavailable")
        assert response.json()["error"]["retry_after_seconds"] > 0
        log.come_back()


async def test_models() -> None:
    """OpenAI's list shape: `auto` and the nodes' models; a model that only a drained node has is not available. What is listed is found."""
    window = NodeModel(name="hf.co/org/big:70b", window=8_192)
    nodes = (node("a", "tiny:1"), node("b", draining=True).model_copy(update={"models": (window,)}))
    async with world(nodes=nodes) as at:
        listed = (await at.client.get("/v1/models")).json()
        assert listed["object"] == "list"
        available = {model["id"]: model["available"] for model in listed["data"]}
        assert available == {"auto": True, "tiny:1": True, window.name: False} | {f"tutti/{name}": True for name in BARE}
        assert {model["id"]: model.get("context_length") for model in listed["data"] if "/" in model["id"]}[window.name] == 8_192
        for model in listed["data"]:
            for name in (model["id"], model["id"].replace("/", "%2F")):
                assert (await at.client.get(f"/v1/models/{name}")).json() == model
        missing = await at.client.get("/v1/models/none")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_unknown_paths_and_methods_are_typed() -> None:
    """In the dialect of the path."""
    async with world() as at:
        for method, path, code in (("GET", "/nope", 404), ("GET", "/v1/chat/completions", 405), ("PUT", "/v1/jobs", 405)):
            response = await at.client.request(method, path)
            assert response.status_code == code
            assert response.json()["error"]["message"]


async def test_the_openapi_document_is_valid_and_complete() -> None:
    """Every reference resolves, every schema is a schema, every route of the application is documented."""
    async with world() as at:
        document = (await at.client.get("/openapi.json")).json()
        chat = document["paths"]["/v1/chat/completions"]["post"]
        assert {"401", "403", "409", "429"} <= set(chat["responses"])
        assert "Idempotency-Key" in {parameter["name"] for parameter in chat["parameters"]}
        assert "Retry-After" in chat["responses"]["429"]["headers"]
        assert "x-ratelimit-remaining-tokens" in json.dumps(chat["responses"]["200"]["headers"])
        for schema in document["components"]["schemas"].values():
            Draft202012Validator.check_schema(schema)
        for reference in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
            assert reference in document["components"]["schemas"]
        served = {(route.path, method) for route in at.ingress.asgi().routes if isinstance(route, Route) for method in route.methods or ()}
        written = {(path, method.upper()) for path, operations in document["paths"].items() for method in operations}
        names = {"job": "id", "model:path": "id", "tenant": "id", "schedule": "id"}
        for path, method in served:
            if path.startswith("/v1") and method != "HEAD":
                assert (re.sub(r"\{([\w:]+)\}", lambda found: "{" + names[found[1]] + "}", path), method) in written
        assert (await at.client.get("/docs")).status_code == 200


async def test_an_instance_that_starts_beside_a_backlog_sees_it() -> None:
    """End offsets minus what the planners' group committed: no event of this instance's time tells of these jobs."""
    at = World()
    parts = [TopicPartition(at.topics.jobs(PriorityClass.BATCH), number) for number in range(at.topics.settings.home_partitions)]
    for part in parts:
        at.log.write(part, [Message(part.topic, b"{}")] * 100)
    planners = await at.log.consumer(client_id="p", group="tutti-planner")
    planners.assign(parts)
    await planners.commit({parts[0]: 40, parts[1]: 100})
    ingress = opening(at, backlog_jobs=459)
    async with running(ingress) as client:
        await until(lambda: ingress.door.backlog.waiting(PriorityClass.BATCH) == 460, "counted")
        refused = await client.post("/v1/jobs", json={"prompt": "x", "class": "batch"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert (await client.post("/v1/jobs", json={"prompt": "x"})).status_code == 202
        await planners.commit({parts[2]: 2})
        await until(lambda: ingress.door.backlog.waiting(PriorityClass.BATCH) == 458, "counted again")
        assert (await client.post("/v1/jobs", json={"prompt": "x", "class": "batch"})).status_code == 202


async def test_a_tree_is_json_or_a_chart_without_text() -> None:
    """The form by query or by Accept; what became of the job's one step, not what was asked or answered."""
    async with world() as at:
        job = await submit(at, prompt="the question")
        await until(lambda: (found := at.ingress.door.journal.status(job)) is not None and found.state == "settled", "its end")
        path = f"/v1/jobs/{job}/tree"
        plain, chart = await at.client.get(path), await at.client.get(path, headers={"accept": "text/vnd.mermaid"})
        tree = plain.json()
        [node] = tree["nodes"]
        assert (tree["id"], tree["status"], tree["whole"], tree["steps"]) == (job, "succeeded", True, 1)
        assert (node["step"]["state"], node["step"]["nodes"], node["step"]["answer_bytes"]) == ("answered", ["node-1"], len("hello back"))
        assert "epoch" not in node["step"]
        assert chart.headers["content-type"].startswith("text/vnd.mermaid")
        assert chart.text.startswith("flowchart TD\n")
        assert (await at.client.get(f"{path}?format=mermaid")).text == chart.text
        assert (await at.client.get(f"{path}?format=svg")).json()["error"]["param"] == "format"
        assert not [found for found in (plain, chart) if "the question" in found.text or "hello back" in found.text]
