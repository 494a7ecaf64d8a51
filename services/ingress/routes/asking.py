"""What routes share: who asks, for whom, what he sends, what a path names; and what goes back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from services.ingress.handlers import Door
from services.ingress.http.exchange import Receive, Scope, Send, bad_query, call_headers, query_tenant, watched
from services.ingress.http.resource import Endpoint
from services.ingress.problems import Problem, Refused
from services.ingress.replies.register import Following, WaitKind
from shared.access import Client
from shared.contracts.base import IN_WORDS
from shared.contracts.bounds import check_depth

M = TypeVar("M", bound=BaseModel)
Routes = dict[str, dict[str, Endpoint]]
"""Path → method → what answers."""


def caller(door: Door, request: Request) -> Client:
    """Who calls. Raises Refused (401, 503)."""
    return door.access.identify(call_headers(request.scope).api_key)


def client_of(door: Door, request: Request) -> tuple[Client, str]:
    """Who calls, and for which tenant: his own, or the one that an administrator names. Raises Refused (401, 403), InvalidInput."""
    client = caller(door, request)
    return client, client.tenant_of(call_headers(request.scope).tenant or query_tenant(request))


async def body_of(door: Door, request: Request, kind: type[M], most: int, *, tenant: str | None = None, empty: bytes = b"") -> M:
    """What is sent, of at most so many bytes; they count on the account of `tenant`, else of whom the caller names. `empty`: what a
    request without a body says. Raises ValidationError, and as `BodyBudget.read`.
    """
    call = call_headers(request.scope)
    tenant = tenant or caller(door, request).named(call.tenant)
    async with door.bodies.read(request.receive, call, tenant, most) as body:
        check_depth(body)
        return kind.model_validate_json(body or empty)


def named(request: Request, part: str, what: str, pattern: str, *, code: str = "invalid_input", param: str | None = "id") -> str:
    """What the path names there. Raises Refused (400)."""
    name = str(request.path_params[part])
    if not re.fullmatch(pattern, name):
        raise Refused(Problem(400, code, f"{what} has {IN_WORDS[pattern]}", param))
    return name


def number_of(request: Request, name: str, usual: int, most: int) -> int:
    """A query parameter, from 1 on. Raises InvalidInput."""
    text = request.query_params.get(name, str(usual))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= most):
        raise bad_query(name, f"a number from 1 to {most}")
    return int(text)


def unknown(message: str) -> Refused:
    """404: unknown and another's look alike."""
    return Refused(Problem(404, "not_found", message, "id"))


def as_json(body: object, status: int = 200, *, exclude_none: bool = False) -> Response:
    return Response(to_json(body, exclude_none=exclude_none), status, media_type="application/json")


def in_text(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as Starlette takes them."""
    return {name.decode(): value.decode() for name, value in headers}


def reader_of(door: Door, kind: WaitKind, tenant: str | None) -> Following:
    """Who reads a stream, on the account of this tenant. Raises Overloaded where nobody else may."""
    reader = Following(kind, tenant or "", door.clock.monotonic() + door.settings.stream_seconds)
    door.register.check(reader.kind, reader.tenant)
    return reader


class ReaderStream(StreamingResponse):
    """Its reader is registered as long as it runs."""

    def __init__(self, door: Door, reader: Following, content: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._door, self._reader = door, reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._door.register.enter(self._reader)
        try:
            await super().__call__(scope, receive, watched(send, self._reader, self._door.clock))
        finally:
            self._door.register.leave(self._reader)
            self._door.bodies.let_go(self._reader)


def json_stream(door: Door, reader: Following, content: AsyncIterator[bytes], headers: Mapping[str, Any] | None = None) -> ReaderStream:
    """One body that counts until its reader has it."""
    return ReaderStream(door, reader, content, {**(headers or {}), "content-type": "application/json"})
