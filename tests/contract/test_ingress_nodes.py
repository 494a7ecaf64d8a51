"""`/v1/nodes`: what operators see of the nodes, and how one is taken out of service."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.ingress.routes import nodes
from shared.clock import SystemClock
from shared.contracts import headers
from shared.contracts.credits import Credits
from shared.contracts.keys import Role
from shared.contracts.maintenance import Maintenance
from shared.contracts.node import Advice, Gpu, Hardware, NodeModel
from shared.errors import LogUnavailable
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition
from shared.placement.roster import LastHeard
from tests.contract.test_ingress_access import bearer
from tests.contract.test_ingress_roles import with_keys
from tests.support.ingress_world import World, node, world
from tests.support.keys import api_key

CARD = Hardware(cpu_count=16, ram_bytes=2**36, vram_bytes=2**35, gpus=(Gpu(name="X", vram_bytes=2**35, driver="580.1"),), bandwidth=900.0)
MODEL = NodeModel(name="m:8b", size_bytes=2**32, digest="d", quantisation="Q4_K_M", window=4096, abilities={"tools": True}, resident=True)
FULL: dict[str, Any] = {"hardware": CARD, "models": (MODEL,), "tags": ("eu",), "slots": 4, "cost_per_hour": 0.5}
TOLD = Advice(code="swaps", level="warn", text="12 loads in an hour")


def entries(at: World) -> list[tuple[bytes | None, bytes | None]]:
    return [(r.key, r.value) for r in at.log.existing(TopicPartition(at.topics.registry, 0)).records]


async def test_a_node_is_shown_with_all_that_is_known_of_it() -> None:
    """Hardware, models, slots and what runs, tags, cost, state, advice; by id; one that is not there is not found."""
    log = MemoryLog(SystemClock())
    async with world(log, nodes=(node("b", at=1.0), node("a", advice=(TOLD,), at=1.0, **FULL))) as at:
        told = Credits(node="a", boot="b", sequence=1, mailbox=0, offers={}, read={}, running=3, queued_tokens=70, resident=("m:8b",))
        producer = await log.producer(client_id="test-credits")
        await producer.send(Message(at.topics.credits, told.to_bytes(), b"a", 0, headers.envelope("credits")))
        await producer.close()
        answer = (await at.client.get("/v1/nodes")).json()["nodes"]
        assert [row["id"] for row in answer] == ["a", "b"]
        row = answer[0]
        assert (row["state"], row["running"], row["queued_tokens"], row["slots"]) == ("live", 3, 70, 4)
        assert row["hardware"]["gpus"] == [{"name": "X", "vram_bytes": 2**35, "driver": "580.1"}]
        assert (row["models"][0]["quantisation"], row["models"][0]["window"], row["models"][0]["resident"]) == ("Q4_K_M", 4096, True)
        assert (row["tags"], row["cost_per_hour"]) == (["eu"], 0.5)
        assert [one["code"] for one in row["advice"]] == ["swaps"]
        assert (await at.client.get("/v1/nodes/a")).json() == row
        assert (await at.client.get("/v1/nodes/c")).status_code == 404
        assert (await at.client.get("/v1/nodes/c%20d")).status_code == 400


async def test_a_node_is_taken_out_of_service_and_back() -> None:
    """An entry of the registry, told as an act, with who did it; of a node that is away, too."""
    async with world() as at:
        answer = await at.client.put("/v1/nodes/away/maintenance", json={"reason": "a fan"})
        assert (answer.status_code, answer.json()["reason"], answer.json()["by"]) == (200, "a fan", "open")
        [(key, value)] = entries(at)
        assert (key, Maintenance.model_validate_json(value or b"").reason) == (b"maintenance/away", "a fan")
        assert (await at.client.put("/v1/nodes/away/maintenance")).status_code == 200
        assert (await at.client.delete("/v1/nodes/away/maintenance")).status_code == 204
        assert entries(at)[-1] == (b"maintenance/away", None)
        for odd in ('{"reason": 1}', '{"why": "x"}', "[]", "x"):
            assert (await at.client.put("/v1/nodes/away/maintenance", content=odd)).status_code == 400


async def test_nodes_are_the_operators_business() -> None:
    """A user, and a viewer, see the models that they may ask for, and not what they run on."""
    keys = [(role.value, api_key(role.value, "x", role)) for role in Role]
    async with with_keys(*keys) as at:
        for role in (Role.USER, Role.VIEWER):
            for path in ("/v1/nodes", "/v1/nodes/node-1"):
                assert (await at.client.get(path, headers=bearer(role.value))).status_code == 403
        seen = await at.client.get("/v1/nodes", headers=bearer("operator"))
        assert [row["id"] for row in seen.json()["nodes"]] == ["node-1"]
        put = await at.client.put("/v1/nodes/node-1/maintenance", json={}, headers=bearer("operator"))
        assert put.json()["by"] == "operator"


@pytest.mark.parametrize("away", [True, False])
async def test_many_who_ask_at_once_cause_one_look(monkeypatch: pytest.MonkeyPatch, *, away: bool) -> None:
    """Within a second; while Kafka does not tell who is alive, what is registered is shown all the same."""
    looks = []

    async def look(*_: Any) -> LastHeard:
        looks.append(1)
        if away:
            raise LogUnavailable("nobody there")
        return LastHeard()

    monkeypatch.setattr(nodes, "heard", look)
    async with world() as at:
        answers = await asyncio.gather(*(at.client.get("/v1/nodes") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert all([row["id"] for row in answer.json()["nodes"]] == ["node-1"] for answer in answers)
        assert len(looks) == 1
