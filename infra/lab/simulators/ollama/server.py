"""Ollama's HTTP API around a simulated node, and `/control`, which no Ollama has.

GET  /control   the truth: requests, in flight, loads, evictions, tokens computed for nobody, ...
POST /control   {"failures": {...}, "scripts": [...], "reset": true, "restart": true}; every part may be absent
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from infra.lab.simulators.ollama.call import Call
from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.errors import ConnectionDropped, OllamaError, bad_request
from infra.lab.simulators.ollama.parameters import Failures, Script
from infra.lab.simulators.ollama.requests import Endpoint
from infra.lab.simulators.ollama.wire import HEADERS

MANAGEMENT = ("push", "create", "embeddings")
"""Routes of Ollama that are not simulated: 501, so that nobody takes the answer for Ollama's."""
MAX_BODY_BYTES = 32 * 1024 * 1024
_JSON = (b"content-type", b"application/json; charset=utf-8")
_NDJSON = (b"content-type", b"application/x-ndjson")
_SIMULATED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Change(BaseModel):
    """Body of POST /control."""

    model_config = ConfigDict(extra="forbid")

    failures: Failures | None = None
    scripts: tuple[Script, ...] | None = None
    reset: bool = False
    restart: bool = False


class WorkEndpoint:
    """/api/chat, /api/generate or /api/embed, on bare ASGI: the only hot path of the server."""

    def __init__(self, node: SimulatedOllama, endpoint: Endpoint) -> None:
        self._node = node
        self._endpoint: Endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = await _body(receive)
        except OllamaError as error:
            await _send_error(send, error)
            return
        call = self._node.open(self._endpoint, request)
        watcher = asyncio.get_running_loop().create_task(_leave_on_disconnect(receive, call))
        try:
            await _answer(call, send)
        finally:
            call.leave()
            watcher.cancel()


async def _answer(call: Call, send: Send) -> None:
    try:
        chunks = await call.ready()
    except OllamaError as error:
        await _send_error(send, error)
        return
    except ConnectionDropped:
        await _drop(send)
        return
    if chunks and not call.streamed:
        await _send(send, 200, _JSON, to_json(chunks[0]))
        return
    await send({"type": "http.response.start", "status": 200, "headers": [_NDJSON, *_SIMULATED]})
    with suppress(ConnectionDropped):  # without a last empty body the server cuts the connection
        while chunks:
            await send(_part(b"".join(to_json(chunk) + b"\n" for chunk in chunks)))
            try:
                chunks = await call.ready()
            except OllamaError as error:
                await send(_part(to_json({"error": error.message}) + b"\n"))
                break
        await send({"type": "http.response.body", "body": b""})


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _body(receive: Receive) -> Any:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise OllamaError(499, "client closed the request")
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise OllamaError(413, "http: request body too large")
        parts.append(part)
    if not size:
        raise bad_request("missing request body")
    try:
        return from_json(b"".join(parts))
    except ValueError as error:
        raise bad_request(f"invalid character in request body: {error}") from error


async def _leave_on_disconnect(receive: Receive, call: Call) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call.leave()


async def _send(send: Send, status: int, kind: tuple[bytes, bytes], body: bytes) -> None:
    headers = [kind, (b"content-length", str(len(body)).encode()), *_SIMULATED]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_error(send: Send, error: OllamaError) -> None:
    await _send(send, error.status, _JSON, to_json({"error": error.message}))


async def _drop(send: Send) -> None:
    """Promise more than comes: the server closes the connection when the application returns."""
    await send({"type": "http.response.start", "status": 200, "headers": [_NDJSON, (b"content-length", b"1"), *_SIMULATED]})


Handler = Callable[[Request], Awaitable[Response]]


def application(node: SimulatedOllama) -> Router:
    """The ASGI application of one node."""

    async def alive(request: Request) -> Response:
        return PlainTextResponse("Ollama is running", headers=HEADERS)

    async def show(request: Request) -> Response:
        return _json(node.show(await _object(request)))

    async def pull(request: Request) -> Response:
        body = await _object(request)
        lines = node.pull(body)
        if body.get("stream") is not False:
            return StreamingResponse(_lines(lines), headers=HEADERS, media_type="application/x-ndjson")
        last = [line async for line in lines][-1]
        return _json(last, 500 if "error" in last else 200)

    async def delete(request: Request) -> Response:
        node.delete(await _object(request))
        return Response(headers=HEADERS)

    async def copy(request: Request) -> Response:
        node.copy(await _object(request))
        return Response(headers=HEADERS)

    async def control(request: Request) -> Response:
        return _json(node.control())

    async def change(request: Request) -> Response:
        wanted = Change.model_validate(await _object(request))
        if wanted.restart:
            await node.restart()
        node.change(wanted.failures, wanted.scripts, reset=wanted.reset)
        return _json(node.control())

    async def not_offered(request: Request) -> Response:
        raise OllamaError(501, f"{request.url.path} is not simulated")

    async def unknown(request: Request) -> Response:
        return PlainTextResponse("404 page not found", 404, headers=HEADERS)

    def facts(read: Callable[[], dict[str, Any]]) -> Handler:
        async def handler(request: Request) -> Response:
            return _json(read())

        return handler

    endpoints: tuple[Endpoint, ...] = ("chat", "generate", "embed")
    work = [Route(f"/api/{name}", WorkEndpoint(node, name), methods=["POST"]) for name in endpoints]
    return Router(
        [
            *work,
            Route("/", _guarded(alive), methods=["GET"]),
            Route("/api/tags", _guarded(facts(node.tags)), methods=["GET"]),
            Route("/api/ps", _guarded(facts(node.ps)), methods=["GET"]),
            Route("/api/version", _guarded(facts(node.version)), methods=["GET"]),
            Route("/api/show", _guarded(show), methods=["POST"]),
            Route("/api/pull", _guarded(pull), methods=["POST"]),
            Route("/api/copy", _guarded(copy), methods=["POST"]),
            Route("/api/delete", _guarded(delete), methods=["DELETE"]),
            Route("/control", _guarded(control), methods=["GET"]),
            Route("/control", _guarded(change), methods=["POST"]),
            *(Route(f"/api/{name}", _guarded(not_offered), methods=["POST", "DELETE"]) for name in MANAGEMENT),
            Route("/{rest:path}", unknown, methods=["GET", "POST", "DELETE", "PUT", "HEAD"]),
        ]
    )


async def _lines(lines: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield to_json(line) + b"\n"


def _guarded(handler: Handler) -> Handler:
    """Errors in Ollama's shape."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except OllamaError as error:
            return _json({"error": error.message}, error.status)
        except ValidationError as error:
            return _json({"error": str(error)}, 400)

    return guarded


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(body, status_code=status, headers=HEADERS)


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise bad_request(f"invalid character in request body: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("an object is expected")
    return body
