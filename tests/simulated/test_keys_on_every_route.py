"""Promise: whatever is asked of a service's API, by the router's own table, is answered only to who has a key that holds now, and of
another tenant's things as of things that never were (simulated, virtual time; ingress, sink and cache as processes have them).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest
from starlette.routing import Route

from services.ingress.dialects import served
from services.ingress.http.resource import Resource
from shared.contracts.headers import envelope
from shared.contracts.keys import KIND, ApiKey, KeySecret, Role
from shared.kafka.port import Message, TopicPartition
from shared.processing.registry import registry_key
from tests.support.cluster import nodes, processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.rest import Answer, Request
from tests.support.cluster.world import World
from tests.support.keys import api_key

pytestmark = pytest.mark.usefixtures("quiet")

SERVICES = ("ingress-1", "sink-1", "cache-1")
PUBLIC = {inquiry.path for dialect in served() for inquiry in dialect.inquiries if inquiry.public}
PUBLIC |= {"/docs", "/docs/oauth2-redirect", "/openapi.json", "/", "/page/config", "/page/{file}"}
"""What an API, or a page, looks like is no secret."""
NEVER = {"job": "order-9", "response": "resp_order-9", "conversation": "talk-9", "schedule": "weekly", "review": f"order-9.{'5' * 32}"}
NEVER |= {"file": f"file-{'9' * 24}", "batch": f"batch_{'9' * 24}"}
"""Names of things that never were: of what tenants have, by what stands in a path."""
ELSE = {"key", "tenant", "name", "alias", "model", "node", "path"}
"""What else stands in paths: nobody's own, or an administrator's matter."""


def bearer(key: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"authorization", f"Bearer {key}".encode()),)


HEADERS: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "none": (),
    "unknown": bearer("nobody"),
    "expired": bearer("expired"),
    "revoked": bearer("revoked"),
    "rotated away": bearer("old"),
    "empty": ((b"authorization", b"Bearer "),),
    "no bearer": ((b"authorization", b"Basic dXNlcjpwYXNz"),),
    "in the other header": ((b"x-api-key", b"nobody"),),
    "bytes": ((b"authorization", b"Bearer \xff\xfe"),),
}


@asynccontextmanager
async def guarded() -> AsyncIterator[World]:
    async with World(7, FaultMix(), aside=("sink-1", "cache-1")) as world:
        now = world.clock.wall()
        rotated = api_key("new", "a").secrets[0], KeySecret(digest=sha256(b"old").hexdigest(), until=now + 1.0)
        keys = {
            "root": api_key("root", role=Role.ADMIN),
            "a": api_key("a", "a"),
            "b": api_key("b", "b"),
            "expired": api_key("expired", role=Role.ADMIN, expires_at=now + 1.0),
            "revoked": api_key("revoked", role=Role.ADMIN),
            "rotated": ApiKey(tenant="a", role=Role.ADMIN, secrets=rotated, at=0.0),
        }
        for name, key in keys.items():
            world.declare(KIND, name, key.to_bytes())
        world.start_all()
        assert await world.until(lambda: all(found.service.readiness().ready for found in world.instances.values()), 60.0)
        topic = world.topics.registry
        world.log.write(TopicPartition(topic, 0), [Message(topic, None, registry_key(KIND, "revoked"), 0, envelope(KIND))])
        await asyncio.sleep(5.0)
        yield world


async def asked(world: World, service: str, request: Request) -> Answer:
    task = world.call(service, request.run(world.instances[service].service.asgi()))
    assert task is not None
    await asyncio.wait_for(task, 600.0)
    await asyncio.sleep(0.01)
    return request.answer


def routes(world: World, service: str) -> Iterator[tuple[str, str]]:
    """By the router's own table: path and method."""
    for route in world.instances[service].service.asgi().routes:
        assert isinstance(route, Route)
        methods = route.endpoint._endpoints if isinstance(route.endpoint, Resource) else route.methods or ()
        yield from ((route.path, method) for method in methods)


def named(route: str, names: dict[str, str]) -> str:
    """What stands in braces, by these names."""
    return re.sub(r"{([a-z]+)(?::path)?}", lambda found: names.get(found[1], "x"), route)


BODIES: dict[str, dict[str, Any]] = {
    "/v1/reviews/{review}": {"verdict": "approve", "digest": "0" * 32},
    "/v1/conversations/{conversation}": {"facts": ["x"]},
    "/v1/schedules/{schedule}": {"cron": "0 4 * * *", "job": {"prompt": "b's"}},
}


def test_a_key_that_does_not_hold_opens_nothing() -> None:
    """Every route of every service, in the path's own form of errors; and no job comes of it."""

    async def scenario() -> None:
        async with guarded() as world:
            for service in SERVICES:
                found = [each for each in routes(world, service) if each[0] not in PUBLIC]
                assert len(found) >= 3
                for route, method in found:
                    for kind, headers in HEADERS.items():
                        body = {"prompt": "x", "model": nodes.MODEL} if method in ("POST", "PUT") else None
                        answer = await asked(world, service, Request(method, named(route, {}), body, headers, gives_up_after=5.0))
                        assert answer.status == 401, (service, method, route, kind, answer.body)
                        assert method == "HEAD" or answer.json["error"], (service, method, route)
            assert not [one for topic in world.topics.all_jobs() for one in _records(world, topic)]

    processes.run(scenario())


def _records(world: World, topic: str) -> list[Any]:
    return [one for number in range(world.log.partition_count(topic)) for one in world.log.existing(TopicPartition(topic, number)).records]


async def furnished(world: World) -> dict[str, str]:
    """What tenant a has."""
    made = {
        "job": ("POST", "/v1/jobs?wait=60", {"id": "order-1", "prompt": "x", "model": nodes.MODEL}),
        "conversation": ("POST", "/v1/jobs?wait=60", {"conversation": "talk-1", "prompt": "x", "model": nodes.MODEL}),
        "schedule": ("PUT", "/v1/schedules/nightly", {"cron": "0 3 * * *", "job": {"prompt": "a's"}}),
        "response": ("POST", "/v1/responses", {"input": "x", "model": nodes.MODEL, "store": True}),
    }
    names = {"job": "order-1", "conversation": "talk-1", "schedule": "nightly", "review": f"order-1.{'5' * 32}"}
    for kind, (method, path, body) in made.items():
        answer = await asked(world, "ingress-1", Request(method, path, body, bearer("a"), gives_up_after=60.0))
        assert answer.status < 300, (kind, answer.body)
        names.setdefault(kind, answer.json.get("id", ""))
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": nodes.MODEL, "messages": []}}
    parts = [("purpose", b"batch"), ('file"; filename="in.jsonl', json.dumps(line).encode())]
    form = b"".join(b'--cut\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value) for name, value in parts)
    multipart = (b"content-type", b"multipart/form-data; boundary=cut")
    uploaded = await asked(world, "ingress-1", Request("POST", "/v1/files", form + b"--cut--\r\n", (*bearer("a"), multipart)))
    names["file"] = uploaded.json["id"]
    body = {"input_file_id": names["file"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    names["batch"] = (await asked(world, "ingress-1", Request("POST", "/v1/batches", body, bearer("a")))).json["id"]
    return names


def plain(body: bytes, names: dict[str, str]) -> Any:
    """Without what differs between any two names and moments."""
    text = body.decode()
    for name in sorted(names.values(), key=len, reverse=True):
        text = text.replace(name.removeprefix("resp_"), "NAME")
    return re.sub(r"\d+(\.\d+)?", "0", json.dumps(json.loads(text or "null")))


def test_anothers_things_are_things_that_never_were() -> None:
    """Every route with a name in its path: asked by another tenant, plainly, in the owner's name, and with a word in the query."""

    async def scenario() -> None:
        async with guarded() as world:
            there = await furnished(world)
            for route, method in routes(world, "ingress-1"):
                kinds = set(re.findall(r"{([a-z]+)", route))
                assert kinds <= NEVER.keys() | ELSE, f"what is {kinds - NEVER.keys() - ELSE} of a tenant?"
                if not kinds & NEVER.keys():
                    continue
                for query, more in (("", ()), ("?tenant=a", ()), ("", ((b"x-tutti-tenant", b"a"),))):
                    seen = []
                    for names in (there, NEVER):
                        headers = (*bearer("b"), *more)
                        request = Request(method, named(route, names) + query, BODIES.get(route), headers, gives_up_after=2.0)
                        answer = await asked(world, "ingress-1", request)
                        seen.append((answer.status, plain(answer.body, names)))
                    assert seen[0] == seen[1], (method, route, query, seen)
            for kind, name in there.items():
                if kind != "review":
                    path = "/v1/batches" if kind == "batch" else f"/v1/{kind}s"
                    answer = await asked(world, "ingress-1", Request("GET", f"{path}/{name}", None, bearer("a")))
                    assert answer.status == 200, (kind, answer.body)

    processes.run(scenario())
