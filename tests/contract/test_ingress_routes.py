"""Every route of the ingress, and what is none: methods, heads, bodies that cannot be read, crashes, and pages that call from a browser."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.routing import Route

from services.ingress.http import bodies
from services.ingress.http.resource import Resource
from services.ingress.settings import IngressSettings
from tests.support.ingress_world import World, world

CHAT = "/v1/chat/completions"
ROUTES = {
    CHAT: {"POST"},
    "/v1/completions": {"POST"},
    "/v1/embeddings": {"POST"},
    "/v1/messages": {"POST"},
    "/v1/messages/count_tokens": {"POST"},
    **{f"/v1/{path}": {"POST"} for path in ("rerank", "audio/transcriptions", "audio/translations", "audio/speech", "images/generations")},
    **{f"/api/{path}": {"POST"} for path in ("chat", "generate", "embed", "embeddings", "show", "pull", "push", "create", "copy")},
    "/api/delete": {"DELETE"},
    **{path: {"GET"} for path in ("/", "/api/tags", "/api/ps", "/api/version")},
    "/v1/models": {"GET"},
    "/v1/models/{model:path}": {"GET"},
    "/v1/model-tasks": {"POST"},
    "/v1/jobs": {"POST"},
    "/v1/jobs/{job}": {"GET", "DELETE"},
    "/v1/jobs/{job}/events": {"GET"},
    "/v1/jobs/{job}/tree": {"GET"},
    "/v1/responses": {"POST"},
    "/v1/responses/{response}": {"GET", "DELETE"},
    "/v1/responses/{response}/cancel": {"POST"},
    "/v1/files": {"GET", "POST"},
    "/v1/files/{file}": {"GET", "DELETE"},
    "/v1/files/{file}/content": {"GET"},
    "/v1/batches": {"GET", "POST"},
    "/v1/batches/{batch}": {"GET"},
    "/v1/batches/{batch}/cancel": {"POST"},
    "/v1/reviews": {"GET"},
    "/v1/reviews/{review}": {"GET", "POST"},
    "/v1/conversations": {"GET"},
    "/v1/conversations/{conversation}": {"GET", "PUT", "DELETE"},
    "/v1/schedules": {"GET"},
    "/v1/nodes": {"GET"},
    "/v1/nodes/{node}": {"GET"},
    "/v1/nodes/{node}/maintenance": {"PUT", "DELETE"},
    "/v1/schedules/{schedule}": {"GET", "PUT", "DELETE"},
    **{
        f"/v1/{kind}s{path}": methods
        for kind in ("prompt", "agent", "profile", "tool", "card")
        for path, methods in {
            "": {"GET"},
            "/{name}": {"GET", "PUT", "DELETE"},
            "/{name}/versions": {"GET"},
            "/{name}/aliases/{alias}": {"PUT"},
            "/{name}/render": {"POST"},
        }.items()
        if path != "/{name}/render" or kind in ("prompt", "agent")
    },
    "/v1/keys": {"GET", "POST"},
    "/v1/keys/{key}": {"GET", "PUT", "DELETE"},
    "/v1/keys/{key}/rotate": {"POST"},
    "/v1/tenants": {"GET"},
    "/v1/tenants/{tenant}": {"GET", "PUT", "DELETE"},
    "/v1/tenants/{tenant}/erase": {"POST"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE")
READS_A_BODY = [("POST", CHAT), ("POST", "/v1/jobs"), ("PUT", "/v1/schedules/x"), ("PUT", "/v1/tenants/x"), ("POST", "/v1/reviews/x")]
READS_A_BODY += [("PUT", f"/v1/{kind}/x") for kind in ("prompts", "agents", "profiles", "tools", "cards")]
READS_A_BODY += [("POST", "/v1/model-tasks"), ("POST", "/api/pull"), ("POST", "/api/copy"), ("DELETE", "/api/delete")]
READS_A_BODY += [("POST", "/v1/keys"), ("PUT", "/v1/keys/x"), ("POST", "/v1/batches")]
READS_A_BODY += [
    ("POST", path) for path in ("/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens")
]
READS_A_BODY += [("POST", f"/api/{path}") for path in ("chat", "generate", "embed", "embeddings", "show")]
PUBLIC = {"/", "/api/version"}
READS_A_BODY += [("PUT", "/v1/agents/critic/aliases/x"), ("POST", "/v1/agents/critic/render")]
HELLO = {"messages": [{"role": "user", "content": "hi"}]}
BOMB = gzip.compress(b" " * 12_000_000, 1)
PAGE = "http://localhost:5173"
WANTED = "authorization, content-type, x-stainless-os, x-stainless-retry-count"


def path_of(route: str) -> str:
    return re.sub(r"{[a-z:]+}", "x", route)


def check_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The one object of errors of the path's dialect: Ollama's is a text, Anthropic's says that it is an error; all others are OpenAI's."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body, path = response.json(), response.request.url.path
    if (path in ROUTES and path.startswith(("/api/", "/v1/messages"))) or path == "/":
        error = {"message": body["error"], **body} if isinstance(body["error"], str) else body["error"]
        assert ("type" in body) == path.startswith("/v1/messages")
        assert (error["code"], bool(error["message"])) == (code, True)
        return dict(error)
    error = body["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["code"] == code
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert error["message"]
    return error


async def test_the_table_of_this_test_is_the_api() -> None:
    """A new route cannot be forgotten here."""
    async with world() as at:
        own = [route.path for route in at.ingress.asgi().router.routes if isinstance(route, Route) and isinstance(route.endpoint, Resource)]
        assert sorted(own) == sorted(ROUTES)
        described = {re.sub(r"{(?!alias)[a-z]+(:path)?}", "{id}", path): set(methods) for path, methods in ROUTES.items()}
        shown = (await at.client.get("/openapi.json")).json()["paths"]
        assert {path: {name.upper() for name in shown[path]} for path in shown if path in described} == described


async def test_what_a_path_does_not_do_is_405_with_what_it_does() -> None:
    """Every route, every method; OPTIONS tells the same."""
    async with world() as at:
        for route, methods in ROUTES.items():
            allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
            told = await at.client.options(path_of(route))
            assert (told.status_code, told.headers["allow"], told.content) == (204, ", ".join(sorted(allowed)), b"")
            for method in METHODS:
                if method not in allowed:
                    response = await at.client.request(method, path_of(route))
                    assert response.headers["allow"] == ", ".join(sorted(allowed))
                    if method == "HEAD":
                        assert response.status_code == 405
                    else:
                        check_error(response, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/v1", "/v1/moderations", "/api", "/api/blobs/x", "/v1/jobs/a/b/c", "/v1/chat", "/é" + "x" * 900])
async def test_an_unknown_path_is_404_in_the_same_object(path: str) -> None:
    """For every method; the path is not repeated at any length."""
    async with world() as at:
        for method in ("GET", "POST", "DELETE"):
            assert len(check_error(await at.client.request(method, path), 404, "unknown_url")["message"]) < 300


async def test_a_head_is_a_get_without_a_body() -> None:
    """Also of an event stream, which would never end."""
    async with world() as at:
        job = (await at.client.post("/v1/jobs", json={"prompt": "x"})).json()["id"]
        for path in (
            "/v1/models",
            "/v1/models/tiny:1",
            f"/v1/jobs/{job}",
            f"/v1/jobs/{job}/events",
            "/v1/schedules",
            "/v1/tenants",
            "/v1/reviews",
        ):
            response = await asyncio.wait_for(at.client.head(path), 5)
            assert (response.status_code, response.content) == (200, b"")
        assert (await at.client.head("/v1/models/none")).status_code == 404


async def test_fastapis_own_pages_speak_the_same_object() -> None:
    """The document and its page are there; a wrong method says which is right."""
    async with world() as at:
        assert (await at.client.get("/docs")).status_code == 200
        response = await at.client.post("/openapi.json")
        check_error(response, 405, "method_not_allowed")
        assert "GET" in response.headers["allow"]


@pytest.mark.parametrize(("method", "path"), READS_A_BODY)
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"a":"\\ud800"}', "invalid_json"),
        (b"[]", "invalid_input"),
        (b'"x"', "invalid_input"),
        (b"null", "invalid_input"),
        (b'{"bogus":1}', None),
    ],
)
async def test_a_body_that_cannot_be_read_is_400_on_every_route(method: str, path: str, content: bytes, code: str | None) -> None:
    """Malformed, not an object, an unknown field; without its text."""
    async with world() as at:
        response = await at.client.request(method, path, content=content)
        code = code or re.findall(r'"code":"([a-z_]+)"', response.text)[0]
        check_error(response, 400, code)
        assert not at.planner.jobs


@pytest.mark.parametrize(("method", "path"), READS_A_BODY)
async def test_a_body_that_is_too_large_is_413_on_every_route(method: str, path: str) -> None:
    """As it is, and unpacked: a small body of zeros does not fill the memory."""
    async with world() as at:
        check_error(await at.client.request(method, path, content=b" " * 9_000_000), 413, "too_large")
        check_error(await at.client.request(method, path, content=BOMB, headers={"content-encoding": "gzip"}), 413, "too_large")
        check_error(await at.client.request(method, path, content=b"[" * 40), 413, "too_large")


def packed(how: str, body: bytes) -> bytes:
    if how in ("gzip", "X-GZIP"):
        return gzip.compress(body)
    if how == "two":
        return gzip.compress(body[:5]) + gzip.compress(body[5:])
    raw = zlib.compressobj(wbits=-15) if how == "raw" else zlib.compressobj()
    return raw.compress(body) + raw.flush()


@pytest.mark.parametrize(
    ("how", "name"), [("gzip", "gzip"), ("X-GZIP", "X-GZIP"), ("two", "gzip"), ("zlib", "deflate"), ("raw", "deflate")]
)
async def test_packed_bodies_are_read(how: str, name: str) -> None:
    """gzip, of several members too, and deflate with or without its head."""
    async with world() as at:
        content = packed(how, json.dumps(HELLO).encode())
        assert (await at.client.post(CHAT, content=content, headers={"content-encoding": name})).status_code == 200
        content = packed(how, b'{"prompt":"x"}')
        assert (await at.client.post("/v1/jobs", content=content, headers={"content-encoding": name})).status_code == 202


@pytest.mark.parametrize(("method", "path"), READS_A_BODY)
async def test_what_cannot_be_unpacked_is_said(method: str, path: str) -> None:
    """415 with what would be read, 400 where it is not what it says."""
    async with world() as at:
        for name in ("br", "zstd", "gzip, gzip", "nonsense"):
            response = await at.client.request(method, path, content=b"x", headers={"content-encoding": name})
            check_error(response, 415, "unsupported_encoding")
            assert response.headers["accept-encoding"] == "gzip, deflate"
        for content in (b"no gzip", gzip.compress(b"{}" * 99)[:-9]):
            response = await at.client.request(method, path, content=content, headers={"content-encoding": "gzip"})
            check_error(response, 400, "invalid_encoding")


@pytest.mark.parametrize(("method", "path"), READS_A_BODY)
async def test_a_body_that_does_not_arrive_is_408(method: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody holds a place with a trickle of bytes."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)
    async with world() as at:

        async def trickle() -> Any:
            yield b"{"
            await asyncio.Event().wait()

        check_error(await asyncio.wait_for(at.client.request(method, path, content=trickle()), 5), 408, "body_too_slow")


CRASHES = [(method, path_of(route)) for route, methods in ROUTES.items() if route not in PUBLIC for method in sorted(methods)]


@pytest.mark.parametrize(("method", "path"), CRASHES)
async def test_a_crash_is_a_typed_500_without_its_text(method: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a route runs into."""
    async with world() as at:

        def crash(*_: object) -> None:
            raise RuntimeError("SECRET")

        monkeypatch.setattr(type(at.ingress.door.access), "identify", crash)
        response = await at.client.request(method, path, json=HELLO if method in ("POST", "PUT") else None)
        check_error(response, 500, "internal")
        assert "SECRET" not in response.text


Ask = Callable[[World, dict[str, str]], Awaitable[httpx.Response]]
ANSWERS: list[tuple[str, Ask]] = [
    ("an answer", lambda at, headers: at.client.post(CHAT, json=HELLO, headers=headers)),
    ("a stream", lambda at, headers: at.client.post(CHAT, json={**HELLO, "stream": True}, headers=headers)),
    ("a refusal", lambda at, headers: at.client.post(CHAT, json={}, headers=headers)),
    ("a list", lambda at, headers: at.client.get("/v1/models", headers=headers)),
    ("a job", lambda at, headers: at.client.post("/v1/jobs", json={"prompt": "x"}, headers=headers)),
    ("nothing", lambda at, headers: at.client.get("/nothing", headers=headers)),
    ("a wrong method", lambda at, headers: at.client.delete("/v1/models", headers=headers)),
    ("the document", lambda at, headers: at.client.get("/openapi.json", headers=headers)),
]


@pytest.mark.parametrize(
    ("origins", "origin", "told"),
    [
        ("local", PAGE, PAGE),
        ("local", "http://localhost", "http://localhost"),
        ("local", "https://127.0.0.1:3000", "https://127.0.0.1:3000"),
        ("local", "http://[::1]:80", "http://[::1]:80"),
        ("local", "http://localhost.evil.example", None),
        ("local", "http://evil.example/?http://localhost:80", None),
        ("local", "http://evil.example", None),
        ("local", "null", None),
        ("", PAGE, None),
        ("https://chat.example.org", "https://chat.example.org", "https://chat.example.org"),
        ("https://chat.example.org", "https://chat.example.org.evil.example", None),
        ("https://chat.example.org", PAGE, None),
        ("local, https://chat.example.org/", "https://chat.example.org", "https://chat.example.org"),
        ("*", "https://anything.example", "*"),
    ],
)
async def test_pages_of_these_origins_may_read_every_answer(origins: str, origin: str, told: str | None) -> None:
    """Good and bad ones alike, and caches are told that the answer depends on the page."""
    async with world(settings={"origins": origins}) as at:
        for what, ask in ANSWERS:
            headers = (await ask(at, {"origin": origin})).headers
            assert headers.get("access-control-allow-origin") == told, what
            assert headers.get("access-control-expose-headers") == (None if told is None else "*"), what
            assert headers.get("vary") == (None if told == "*" else "Origin"), what


async def test_a_browser_may_ask_before_it_sends() -> None:
    """On every route: its methods, and the headers that were asked for, OpenAI's own too."""
    async with world() as at:
        for route, methods in ROUTES.items():
            asked = {"origin": PAGE, "access-control-request-method": min(methods), "access-control-request-headers": WANTED}
            response = await at.client.options(path_of(route), headers=asked)
            assert response.status_code == 204
            assert response.headers["access-control-allow-origin"] == PAGE
            assert methods <= set(response.headers["access-control-allow-methods"].split(", "))
            assert response.headers["access-control-allow-headers"] == WANTED
            assert "Origin" in response.headers["vary"]
            foreign = await at.client.options(path_of(route), headers=asked | {"origin": "http://evil.example"})
            assert not [name for name in foreign.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("origins", ["chat.example.org", "https://", "https://a b", "local,nonsense"])
def test_an_origin_that_is_none_is_refused_at_start(origins: str) -> None:
    """A page that can never match would be noticed by nobody."""
    with pytest.raises(ValidationError, match="not an origin"):
        IngressSettings(origins=origins)
