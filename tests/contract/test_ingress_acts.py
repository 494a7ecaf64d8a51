"""What administrators do is told on `acts` before it is done: who, what, whose; no secret."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from services.ingress.api import needed
from shared.access import Right
from shared.contracts.act import Act
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import TopicPartition
from tests.contract.test_ingress_access import bearer
from tests.contract.test_ingress_routes import ROUTES
from tests.contract.test_layout import ROOT, sources
from tests.support.ingress_world import World, node, world

SCHEDULE = {"cron": "0 3 * * *", "job": {"prompt": "x", "tenant": "acme"}}
PROFILE = {"about": "x"}
CALLS: list[tuple[str, str, Any, tuple[str, str, str, str | None]]] = [
    ("POST", "/v1/keys", {"name": "team", "tenant": "acme"}, ("create", "key", "team", "acme")),
    ("PUT", "/v1/keys/team", {"tenant": "acme", "role": "viewer"}, ("change", "key", "team", "acme")),
    ("POST", "/v1/keys/team/rotate", {}, ("rotate", "key", "team", "acme")),
    ("DELETE", "/v1/keys/team", None, ("revoke", "key", "team", "acme")),
    ("PUT", "/v1/tenants/acme", {"calls": 5}, ("declare", "tenant", "acme", "acme")),
    ("DELETE", "/v1/tenants/acme", None, ("remove", "tenant", "acme", "acme")),
    ("PUT", "/v1/schedules/nightly", SCHEDULE, ("declare", "schedule", "nightly", "acme")),
    ("DELETE", "/v1/schedules/nightly?tenant=acme", None, ("remove", "schedule", "nightly", "acme")),
    ("POST", "/v1/tenants/nobody/erase", {"dry_run": False}, ("erase", "tenant", "nobody", "nobody")),
    ("PUT", "/v1/profiles/mine", PROFILE, ("declare", "profile", "mine", None)),
    ("PUT", "/v1/profiles/mine/aliases/best", {"version": "latest"}, ("move", "profile", "mine@best", None)),
    ("DELETE", "/v1/profiles/mine", None, ("remove", "profile", "mine", None)),
    ("POST", "/v1/model-tasks", {"action": "pull", "model": "new:1"}, ("pull", "model", "new:1 on node-1", None)),
    ("DELETE", "/api/delete", {"model": "tiny:1"}, ("delete", "model", "tiny:1 on node-1", None)),
    ("PUT", "/v1/nodes/n1/maintenance", {"reason": "a fan"}, ("take out", "maintenance", "n1", None)),
    ("DELETE", "/v1/nodes/n1/maintenance", None, ("resume", "maintenance", "n1", None)),
]


def acts(at: World) -> list[Act]:
    return [Act.model_validate_json(record.value or b"") for record in written(at, at.topics.acts)]


def written(at: World, topic: str) -> list[MemoryRecord]:
    assert isinstance(at.log, MemoryLog)
    return [record for record in at.log.existing(TopicPartition(topic, 0)).records if isinstance(record, MemoryRecord)]


async def test_each_act_is_told_before_it_is_done() -> None:
    async with world(nodes=(node(manages="chat"),)) as at:
        root = (await at.client.post("/v1/keys", json={"name": "root", "role": "admin"})).json()["key"]
        assert [act.by for act in acts(at)] == ["open"]
        for number, (method, path, body, expected) in enumerate(CALLS, 2):
            answer = await at.client.request(method, path, json=body, headers=bearer(root))
            assert answer.status_code < 300, (path, answer.text)
            found = acts(at)
            assert len(found) == number, path
            act = found[-1]
            assert (act.did, act.kind, act.name, act.tenant) == expected
            assert act.by == "root"
        kinds = {record.key.split(b"/")[0] for record in written(at, at.topics.registry) if record.key}
        assert kinds == {b"key", b"tenant", b"schedule", b"profile", b"erased", b"maintenance", b"pin"}
        told = b"".join(record.value or b"" for record in written(at, at.topics.acts))
        digests = [
            record.value.partition(b'"digest":"')[2][:64]
            for record in written(at, at.topics.registry)
            if b"digest" in (record.value or b"")
        ]
        assert root.encode() not in told
        assert not any(digest in told for digest in digests)


async def test_what_is_not_allowed_is_no_act() -> None:
    async with world() as at:
        root = (await at.client.post("/v1/keys", json={"name": "root", "role": "admin"})).json()["key"]
        user = (await at.client.post("/v1/keys", json={"name": "user", "role": "user"}, headers=bearer(root))).json()["key"]
        before = len(acts(at))
        for method, path, body, _ in CALLS[:6]:
            assert (await at.client.request(method, path, json=body, headers=bearer(user))).status_code == 403
        assert (await at.client.put("/v1/tenants/acme", json={"calls": -1}, headers=bearer(root))).status_code == 400
        assert len(acts(at)) == before


async def test_without_a_place_to_tell_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as at:
        assert isinstance(at.log, MemoryLog)
        admin = await at.log.admin()
        await admin.delete_topics([at.topics.acts])
        answer = await at.client.put("/v1/tenants/acme", json={"calls": 5})
        assert answer.status_code >= 500
        assert not written(at, at.topics.registry)


def test_every_route_of_administrators_is_walked() -> None:
    """What needs more than a user's right and is no look; a new one belongs into the list above."""
    walked = {(method, path.partition("?")[0].split("/")[2]) for method, path, _, _ in CALLS}
    alike = {"profiles": ("agents", "prompts", "tools", "cards"), "model-tasks": ("pull", "copy")}
    walked |= {(method, other) for method, kind in list(walked) for other in alike.get(kind, ())}
    for route, methods in ROUTES.items():
        for method in methods - {"GET", "HEAD"}:
            if needed(method, route) > Right.WRITE:
                assert (method, route.split("/")[2]) in walked, (method, route)


def test_nobody_writes_to_the_registry_in_another_way() -> None:
    """Only there is it told who did it."""
    users = {path.relative_to(ROOT).as_posix() for path in sources("services/ingress") if _names(path.read_text(), "registry_key")}
    assert users == {"services/ingress/declaring.py"}


def _names(text: str, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(ast.parse(text)))
