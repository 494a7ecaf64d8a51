"""Tasks on models by REST and in Ollama's words: what becomes of an order, progress, ends, who may ask, and by no other way in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from shared.clock import SystemClock
from shared.contracts.act import Act
from shared.contracts.base import StepId
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import envelope
from shared.contracts.job import Job
from shared.contracts.keys import Role
from shared.contracts.node import Node, NodeModel
from shared.contracts.reply import Chunk, Chunks
from shared.contracts.result import Status
from shared.contracts.tasks import Action, Pin, RunningTask, TaskProgress
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition
from tests.contract.test_ingress_access import bearer
from tests.contract.test_ingress_declarations import refused
from tests.contract.test_ingress_nodes import entries
from tests.contract.test_ingress_roles import with_keys
from tests.support.fake_planner import STEP, Script
from tests.support.ingress_world import World, register, until, world
from tests.support.keys import api_key

TASKS = "/v1/model-tasks"
TINY = NodeModel(name="tiny:1", size_bytes=10)


def node(name: str, *models: NodeModel, **fields: Any) -> Node:
    return Node(**{"id": name, "boot": "b", "mailbox": 0, "backend": "ollama", "manages": "chat", "at": 0.0, "models": models, **fields})


NODES = (node("a", TINY), node("b", TINY, capabilities=("embed",)), node("c", capabilities=()))


def acts(at: World) -> list[tuple[str, str, str]]:
    assert isinstance(at.log, MemoryLog)
    found = [Act.model_validate_json(record.value or b"") for record in at.log.existing(TopicPartition(at.topics.acts, 0)).records]
    return [(act.did, act.kind, act.name) for act in found]


def the_job(at: World) -> Job:
    [seen] = at.planner.jobs.values()
    return seen.job


async def test_an_order_is_a_job_that_names_its_nodes() -> None:
    """Chosen once; told on `acts`; answered with where to look. What has no model yet can pull one, too."""
    async with world(nodes=NODES) as at:
        response = await at.client.post(TASKS, json={"action": "pull", "model": "new:1", "all": True, "class": "batch"})
        assert response.status_code == 202, response.text
        job = the_job(at)
        targets = [{"node": name, "capability": "chat"} for name in "abc"]
        assert (job.pattern, job.input) == ("models", {"action": "pull", "name": "new:1", "nodes": targets})
        assert (response.json()["nodes"], response.headers["location"]) == (targets, f"/v1/jobs/{response.json()['id']}")
        assert job.deadline_seconds == 86_400
        assert acts(at) == [("pull", "model", "new:1 on a, b, c")]


async def test_a_card_stands_for_its_model_and_what_cannot_be_done_is_said() -> None:
    async with world(nodes=NODES) as at:
        await until(at.ingress.door.offered.declared.complete, "the registry is read")
        await at.client.put("/v1/cards/smart", json={"model": "tiny:1", "synonyms": ["gpt-4o"]})
        assert (await at.client.post(TASKS, json={"action": "load", "model": "gpt-4o", "copies": 2})).status_code == 202
        assert [each["node"] for each in the_job(at).input["nodes"]] == ["a", "b"]
        assert the_job(at).input["name"] == "tiny:1"
        refused(await at.client.post(TASKS, json={"action": "load", "model": "none:1"}), 404, "model_not_found")
        refused(await at.client.post(TASKS, json={"action": "load", "model": "tiny:1", "copies": 3}), 409, "no_room")
        refused(await at.client.post(TASKS, json={"action": "pull", "model": "tiny:1", "nodes": ["z"]}), 404, "node_not_found")
        refused(await at.client.post(TASKS, json={"action": "paint", "model": "tiny:1"}), 400, "invalid_input")
        assert len(at.planner.jobs) == 1


async def test_a_pin_stands_in_the_registry_until_the_model_is_given_up() -> None:
    """For each node, as it spells the model; what is only loaded does not."""
    async with world(nodes=NODES) as at:
        for action in ("load", "pin", "unpin"):
            order = {"action": action, "model": "tiny:1", "nodes": ["a", "b"]}
            assert (await at.client.post(TASKS, json=order)).status_code == 202
        [(_, first), (_, second), *gone] = entries(at)
        assert [key for key, _ in entries(at)] == [b"pin/a/tiny:1", b"pin/b/tiny:1"] * 2
        assert (Pin.model_validate_json(first or b"").by, first) == ("open", second)
        assert [value for _, value in gone] == [None, None]


async def test_a_refused_order_pins_nothing() -> None:
    """The backlog is full: nothing would ever do it, or say so."""
    async with world(nodes=NODES) as at:
        at.ingress.door.backlog.retry_after_seconds = lambda *_: 7.0  # type: ignore[method-assign]
        assert (await at.client.post(TASKS, json={"action": "pin", "model": "tiny:1"})).status_code == 429
        assert entries(at) == []


@pytest.mark.parametrize("action", ["unpin", "unload", "delete"])
async def test_a_pin_that_no_node_can_give_up_is_given_up(action: str) -> None:
    """Of a node that has left, or has lost the model: by an order for all, or for that node; whatever else comes of the order."""
    async with world(nodes=NODES) as at:
        pins = ("gone/tiny:1", "c/tiny:1", "gone/lost", "gone/lost:8b")
        for name in pins:
            await at.planner.send([Message(at.topics.registry, Pin(by="x", at=1.0).to_bytes(), f"pin/{name}".encode(), 0, envelope("pin"))])
        await until(lambda: len(at.ingress._declared.pins) == len(pins), "they are read")

        async def left(order: dict[str, Any], status: int) -> list[str]:
            said = await at.client.post(TASKS, json={"action": action, **order})
            assert said.status_code == status, said.text
            return sorted((key or b"").decode() for key, value in entries(at)[len(pins) :] if value is None)

        assert await left({"model": "tiny:1", "nodes": ["a"]}, 202) == ["pin/a/tiny:1"]
        assert await left({"model": "lost:latest"}, 404) == ["pin/a/tiny:1", "pin/gone/lost"]
        every = ["pin/a/tiny:1", "pin/a/tiny:1", "pin/b/tiny:1", "pin/c/tiny:1", "pin/gone/lost", "pin/gone/tiny:1"]
        assert await left({"model": "tiny:1"}, 202) == every
        await until(lambda: at.ingress._declared.pins == {"gone/lost:8b"}, "it is read")
        assert acts(at)[1] == (action, "model", "lost:latest: gone/lost")


async def tell(at: World, *progress: TaskProgress) -> None:
    """As a worker does it."""
    [seen] = at.planner.jobs.values()
    assert seen.reply is not None
    chunk = Chunk(job=seen.id, step=StepId(STEP), attempt=1, sequence=0, offset=0, progress=progress, correlation=seen.reply.correlation)
    await at.planner.send([Message(seen.reply.topic, Chunks(chunks=(chunk,)).to_bytes(), None, seen.reply.partition, envelope("chunks"))])


PULLING = TaskProgress(status="pulling 0123", digest="sha256:0123", total=10, completed=5, node="a")


async def test_a_pull_is_told_as_ollama_tells_it() -> None:
    """Lines as they come, the last is success; without a stream one object."""
    async with world(nodes=NODES, script=lambda _: Script(hold=True)) as at:
        asked = asyncio.create_task(at.client.post("/api/pull", json={"name": "new:1", "nodes": ["a"]}))
        await until(lambda: bool(at.planner.jobs), "the job")
        await tell(at, TaskProgress(status="pulling manifest", node="a"), PULLING)
        await tell(at, PULLING.model_copy(update={"completed": 10}), TaskProgress(status="success", node="a"))
        await at.planner.send(at.planner.end(next(iter(at.planner.jobs))))
        response = await asked
        assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
        file = {"status": "pulling 0123", "digest": "sha256:0123", "total": 10, "node": "a"}
        assert [json.loads(line) for line in response.text.splitlines()] == [
            {"status": "pulling manifest", "node": "a"},
            file | {"completed": 5},
            file | {"completed": 10},
            {"status": "a: success"},
            {"status": "success"},
        ]
    async with world(nodes=NODES) as at:
        whole = await at.client.post("/api/pull", json={"model": "new:1", "stream": False, "copies": 1})
        assert (whole.status_code, whole.json()) == (200, {"status": "success"})
        assert the_job(at).input["nodes"] == [{"node": "a", "capability": "chat"}]


async def test_models_are_copied_and_deleted_where_they_are() -> None:
    async with world(nodes=NODES) as at:
        copied = await at.client.post("/api/copy", json={"source": "tiny:1", "destination": "mine"})
        assert (copied.status_code, copied.content) == (200, b"")
        deleted = await at.client.request("DELETE", "/api/delete", json={"model": "tiny:1"})
        assert (deleted.status_code, deleted.content) == (200, b"")
        first, second = (seen.job.input for seen in at.planner.jobs.values())
        assert (first["action"], first["to"], second["action"]) == ("copy", "mine", "delete")
        assert [[each["node"] for each in given["nodes"]] for given in (first, second)] == [["a", "b"], ["a", "b"]]
        missing = await at.client.request("DELETE", "/api/delete", json={"model": "none:1"})
        assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")
        insecure = await at.client.post("/api/pull", json={"model": "x", "insecure": True})
        assert (insecure.status_code, insecure.json()["code"]) == (400, "unsupported")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_task_that_fails_says_why(stream: bool) -> None:
    """As a last line after the head of a stream, else as the status."""
    failure = Failure(kind=FailureKind.BAD_REQUEST, message="pull new:1 failed on 1 of 1 nodes: a: file does not exist")
    async with world(nodes=NODES, script=lambda _: Script(status=Status.FAILED, failure=failure)) as at:
        response = await at.client.post("/api/pull", json={"model": "new:1", "stream": stream})
        assert response.status_code == (200 if stream else 400)
        assert "file does not exist" in json.loads(response.text.splitlines()[-1])["error"]


async def test_who_leaves_ends_his_pull() -> None:
    """As Ollama has it; with `x-tutti-detach` it goes on."""
    for headers, cancelled in (({}, True), ({"x-tutti-detach": "true"}, False)):
        async with world(nodes=NODES, script=lambda _: Script(hold=True)) as at:
            asked = asyncio.create_task(at.client.post("/api/pull", json={"model": "new:1"}, headers=headers))
            await until(lambda: bool(at.planner.jobs), "the job")
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            if cancelled:
                await until(lambda: bool(at.planner.cancels), "the cancel")
            else:
                await SystemClock().sleep(0.1)
                assert not at.planner.cancels


async def test_a_status_says_how_far_a_task_is() -> None:
    """As the node that does it has told; once it has ended no more."""
    async with world(nodes=NODES, script=lambda _: Script(hold=True)) as at:
        identifier = (await at.client.post(TASKS, json={"action": "pull", "model": "new:1", "nodes": ["a"]})).json()["id"]
        running = RunningTask(step=StepId(STEP), action=Action.PULL, model="new:1", progress=PULLING)
        await register(at.log, at.topics, node("a", TINY, tasks=(running,)))

        async def shown() -> Any:
            [step] = (await at.client.get(f"/v1/jobs/{identifier}")).json()["steps"] or [{}]
            return step.get("progress")

        await until(lambda: any(each.tasks for each in at.ingress.door.registry.table), "the node tells it")
        assert await shown() == {"status": "pulling 0123", "digest": "sha256:0123", "total": 10, "completed": 5, "node": "a"}
        await at.planner.send(at.planner.end(next(iter(at.planner.jobs))))
        await until(lambda: at.planner.jobs[next(iter(at.planner.jobs))].ended is not None, "the end")
        ended = (await at.client.get(f"/v1/jobs/{identifier}?tenant=default")).json()
        assert ended["state"] != "settled" or "progress" not in ended["steps"][0]


TARGET = {"action": "delete", "name": "tiny:1", "nodes": [{"node": "a"}]}
FORK = {"of": "j", "pattern": "models", "version": 1, "given": TARGET}
BY_THE_BACK_DOOR: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a job": ("POST", "/v1/jobs", {"prompt": "x", "pattern": "models", "input": TARGET}),
    "a fork of one": ("POST", "/v1/jobs", {"prompt": "x", "pattern": "fork", "input": FORK}),
    "a schedule": ("PUT", "/v1/schedules/s", {"cron": "0 3 * * *", "job": {"prompt": "x", "pattern": "models", "input": TARGET}}),
}


@pytest.mark.parametrize("way", BY_THE_BACK_DOOR)
async def test_only_operators_have_models_changed(way: str) -> None:
    """By whatever way in. An operator's job goes through."""
    method, path, body = BY_THE_BACK_DOOR[way]
    keys = (("u", api_key("u", "x", Role.USER)), ("o", api_key("o", "ops", Role.OPERATOR)))
    async with with_keys(*keys) as at:
        await register(at.log, at.topics, *NODES)
        refused(await at.client.request(method, path, json=body, headers=bearer("u")), 403, "admin_only")
        refused(await at.client.post(TASKS, json={"action": "delete", "model": "tiny:1"}, headers=bearer("u")), 403, "admin_only")
        said: httpx.Response = await at.client.request("DELETE", "/api/delete", json={"model": "tiny:1"}, headers=bearer("u"))
        assert (said.status_code, said.json()["code"]) == (403, "admin_only")
        assert not at.planner.jobs
        assert (await at.client.request(method, path, json=body, headers=bearer("o"))).status_code < 300


async def test_no_model_stands_for_the_pattern() -> None:
    """A chat with `tutti/models` names no action."""
    async with world(nodes=NODES) as at:
        chat = {"model": "tutti/models", "messages": [{"role": "user", "content": "x"}]}
        refused(await at.client.post("/v1/chat/completions", json=chat), 400, "invalid_input")
        assert not any(each["id"] == "tutti/models" for each in (await at.client.get("/v1/models")).json()["data"])
