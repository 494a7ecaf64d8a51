"""Roles over every route, and keys made, changed, rotated and revoked at run time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.ingress.api import needed
from shared.access import RIGHTS, Right
from shared.contracts.base import PriorityClass
from shared.contracts.headers import envelope
from shared.contracts.keys import KIND, ApiKey, Role
from shared.kafka.port import Message
from shared.processing.registry import registry_key
from tests.contract.test_ingress_access import BODY, CHAT, JOBS, bearer
from tests.contract.test_ingress_routes import HELLO, PUBLIC, ROUTES, path_of
from tests.support.ingress_world import World, until, world
from tests.support.keys import api_key

LOOKS_BY_POST = {"/v1/messages/count_tokens", "/api/show", "/v1/prompts/{name}/render", "/v1/agents/{name}/render"}
REFUSED_ANYWAY = {"/api/push", "/api/create", "/v1/rerank", "/v1/images/generations"}
REFUSED_ANYWAY |= {f"/v1/audio/{what}" for what in ("transcriptions", "translations", "speech")}


@asynccontextmanager
async def with_keys(*keys: tuple[str, ApiKey]) -> AsyncIterator[World]:
    """An ingress that has read these from the registry."""
    async with world() as at:
        producer = await at.log.producer(client_id="test-keys")
        entries = [Message(at.topics.registry, key.to_bytes(), registry_key(KIND, name), 0, envelope("api_key")) for name, key in keys]
        await producer.send_many(entries)
        await producer.close()
        await until(lambda: len(at.ingress.door.access.declared) == len(keys), "keys")
        yield at


def expected(method: str, route: str) -> Right:
    """What each route needs, written a second time, by hand."""
    if route.startswith("/v1/keys") or (route.startswith("/v1/tenants/{tenant}") and method != "GET"):
        return Right.ADMINISTER
    if route.startswith(("/v1/prompts", "/v1/agents", "/v1/profiles", "/v1/tools", "/v1/cards")) and method in ("PUT", "DELETE"):
        return Right.OPERATE
    if route in ("/v1/tenants", "/v1/model-tasks", "/api/pull", "/api/copy", "/api/delete") or route.startswith("/v1/nodes"):
        return Right.OPERATE
    return Right.READ if method in ("GET", "HEAD") or route in LOOKS_BY_POST | REFUSED_ANYWAY else Right.WRITE


@pytest.mark.parametrize("role", Role)
async def test_every_route_asks_for_the_right_that_it_needs(role: Role) -> None:
    """A role that has it is not refused for it; one that has not gets 403 in the path's dialect, and nothing happens."""
    async with with_keys(("k", api_key("k", "x", role)), ("root", api_key("root", role=Role.ADMIN))) as at:
        for route, methods in ROUTES.items():
            for method in sorted(methods):
                body = HELLO if method in ("POST", "PUT") else None
                answer = await at.client.request(method, path_of(route), json=body, headers=bearer("k"))
                refused = answer.status_code == 403
                assert refused == (route not in PUBLIC and RIGHTS[role] < expected(method, route)), (method, route, answer.text)
        assert bool(at.planner.jobs) == (role is not Role.VIEWER)


def test_what_is_new_is_not_for_everybody() -> None:
    """A route that nobody has thought of: a look is a look, all else needs the right to write."""
    assert (needed("GET", "/v1/new"), needed("POST", "/v1/new"), needed("DELETE", "/v1/new")) == (Right.READ, Right.WRITE, Right.WRITE)


async def test_an_operator_acts_for_every_tenant_and_a_viewer_looks_at_his_own() -> None:
    """Jobs of others: seen and cancelled by the one, neither by the other."""
    users = [(name, api_key(name, name)) for name in "ab"]
    async with with_keys(("o", api_key("o", "ops", Role.OPERATOR)), ("v", api_key("v", "a", Role.VIEWER)), *users) as at:
        jobs = {name: (await at.client.post(f"{JOBS}?wait=5", json={"prompt": "x"}, headers=bearer(name))).json()["id"] for name in "ab"}
        for name, job in jobs.items():
            assert (await at.client.get(f"{JOBS}/{job}?tenant={name}", headers=bearer("o"))).status_code == 200
            seen = await at.client.get(f"{JOBS}/{job}", headers=bearer("v"))
            assert seen.status_code == (200 if name == "a" else 404)


async def test_a_ceiling_bounds_the_class_and_lowers_the_usual_one() -> None:
    """What is asked for above it is refused; who asks for nothing gets what he may."""
    async with with_keys(("k", api_key("k", ceiling=PriorityClass.STANDARD))) as at:
        refused = await at.client.post(CHAT, json=BODY, headers=bearer("k", **{"x-tutti-class": "interactive"}))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "class_not_allowed")
        assert (await at.client.post(CHAT, json=BODY, headers=bearer("k"))).status_code == 200
        assert [seen.priority_class for seen in at.planner.jobs.values()] == [PriorityClass.STANDARD]


async def test_a_key_lives_from_making_to_revoking() -> None:
    """Told once; changed; rotated with a grace; revoked. Digests are shown to nobody, and the log holds no key."""
    async with world() as at:
        assert (await at.client.get("/v1/models")).status_code == 200
        first = await at.client.post("/v1/keys", json={"name": "team", "tenant": "team"})
        assert (first.status_code, first.json()["error"]["code"]) == (400, "first_key")
        root = (await at.client.post("/v1/keys", json={"name": "root", "role": "admin"})).json()["key"]
        assert (await at.client.get("/v1/models")).status_code == 401
        made = await at.client.post("/v1/keys", json={"name": "team", "tenant": "team", "ceiling": "batch"}, headers=bearer(root))
        assert (made.status_code, made.json()["id"], made.json()["by"]) == (201, "team", "root")
        old = made.json()["key"]
        assert (await at.client.post("/v1/keys", json={"name": "team"}, headers=bearer(root))).status_code == 409
        assert (await at.client.post(CHAT, json=BODY, headers=bearer(old))).status_code == 200
        assert (await at.client.get("/v1/keys", headers=bearer(old))).status_code == 403
        changed = await at.client.put("/v1/keys/team", json={"tenant": "team", "role": "viewer"}, headers=bearer(root))
        assert (changed.json()["role"], "key" in changed.json()) == ("viewer", False)
        assert (await at.client.post(CHAT, json=BODY, headers=bearer(old))).status_code == 403
        new = (await at.client.post("/v1/keys/team/rotate", headers=bearer(root))).json()["key"]
        for key in (old, new):
            assert (await at.client.get("/v1/models", headers=bearer(key))).status_code == 200
        newest = (await at.client.post("/v1/keys/team/rotate", json={"grace_seconds": 0}, headers=bearer(root))).json()["key"]
        assert [(await at.client.get("/v1/models", headers=bearer(key))).status_code for key in (old, new, newest)] == [401, 401, 200]
        shown = (await at.client.get("/v1/keys", headers=bearer(root))).text
        digests = [secret.digest for key in at.ingress.door.access.declared.values() for secret in key.secrets]
        assert not any(secret in shown for secret in (old, new, newest, root, *digests))
        assert (await at.client.delete("/v1/keys/team", headers=bearer(root))).status_code == 204
        assert (await at.client.get("/v1/models", headers=bearer(newest))).status_code == 401
        assert (await at.client.delete("/v1/keys/team", headers=bearer(root))).status_code == 404


WRONG: list[dict[str, Any]] = [
    {"name": "a b"},
    {"role": "user"},
    {"name": "x", "role": "king"},
    {"name": "x", "classes": []},
    {"name": "x", "classes": ["interactive"], "ceiling": "batch"},
    {"name": "x", "expires_at": -1},
    {"name": "x", "requests_per_minute": 0},
    {"name": "x", "digest": "0" * 64},
]


@pytest.mark.parametrize("body", WRONG)
async def test_a_key_that_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    """400 with the field; nothing is written."""
    async with world() as at:
        answer = await at.client.post("/v1/keys", json=body)
        assert answer.status_code == 400
        assert not at.ingress.door.access.declared
