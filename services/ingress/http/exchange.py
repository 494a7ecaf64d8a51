"""One HTTP exchange on bare ASGI: read tutti's headers, answer, notice that the client is gone."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request

from services.ingress.problems import ClientGone, Problem
from services.ingress.replies.register import Guest
from services.ingress.replies.waiters import Caller
from shared.access import key_of
from shared.clock import Clock
from shared.contracts import headers as record_headers
from shared.contracts.base import IN_WORDS, TENANT, PriorityClass
from shared.errors import InvalidInput

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderList = Sequence[tuple[bytes, bytes]]

_TENANT = re.compile(TENANT)
MAX_DEADLINE_SECONDS = 7 * 86_400.0
IDEMPOTENCY_KEY = r"[\x21-\x7e]{1,255}"
_KEY = re.compile(IDEMPOTENCY_KEY)
_PIECE_BYTES = 64 * 1024
_OURS = frozenset(
    {
        b"x-tutti-class",
        b"x-tutti-tenant",
        b"x-tutti-deadline-seconds",
        b"x-tutti-detach",
        b"x-tutti-cache",
        b"cache-control",
        b"traceparent",
        b"content-length",
        b"content-encoding",
        b"idempotency-key",
        b"authorization",
        b"x-api-key",
    }
)


def bad_header(name: str, message: str) -> InvalidInput:
    """The header's value is not valid."""
    return InvalidInput(f"header {name}: {message}", code="invalid_header", param=name)


def bad_query(name: str, message: str) -> InvalidInput:
    """The query parameter is not valid."""
    return InvalidInput(f"{name}: {message}", code="invalid_query", param=name)


class CallHeaders(NamedTuple):
    """What a caller says beside the body."""

    priority_class: PriorityClass | None
    tenant: str | None
    deadline_seconds: float | None
    detach: bool
    """The job goes on when the client disconnects."""
    trace: str | None
    content_length: int | None
    content_encoding: str | None
    idempotency_key: str | None
    api_key: str | None
    cache: str | None = None
    cache_control: str | None = None
    """As they are written (`cache_wishes`)."""


def call_headers(scope: Scope) -> CallHeaders:
    """Read the headers of a request. Raises InvalidInput."""
    found = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _OURS}
    length = found.get(b"content-length", "")
    trace = found.get(b"traceparent")
    return CallHeaders(
        _class(found.get(b"x-tutti-class")),
        _tenant(found.get(b"x-tutti-tenant")),
        _deadline(found.get(b"x-tutti-deadline-seconds")),
        found.get(b"x-tutti-detach", "").lower() == "true",
        None if trace is None else record_headers.Envelope(((record_headers.TRACEPARENT, trace.encode("latin-1")),)).traceparent(),
        int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None,
        found.get(b"content-encoding"),
        _idempotency_key(found.get(b"idempotency-key")),
        key_of(found.get(b"authorization"), found.get(b"x-api-key")),
        found.get(b"x-tutti-cache"),
        found.get(b"cache-control"),
    )


def _idempotency_key(value: str | None) -> str | None:
    if value is not None and not _KEY.fullmatch(value):
        raise bad_header("idempotency-key", "1 to 255 printable ASCII characters without spaces")
    return value


def _class(value: str | None) -> PriorityClass | None:
    if value is None:
        return None
    try:
        return PriorityClass(value)
    except ValueError:
        raise bad_header("x-tutti-class", "one of interactive, standard, batch") from None


def _tenant(value: str | None) -> str | None:
    if value is not None and not _TENANT.fullmatch(value):
        raise bad_header("x-tutti-tenant", IN_WORDS[TENANT])
    return value


def query_tenant(request: Request) -> str | None:
    """`?tenant=`: the same as the header, for a URL that is followed as it stands. Raises InvalidInput."""
    value = request.query_params.get("tenant")
    if value is not None and not _TENANT.fullmatch(value):
        raise bad_query("tenant", IN_WORDS[TENANT])
    return value


def _deadline(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_DEADLINE_SECONDS:
        raise bad_header("x-tutti-deadline-seconds", "seconds, more than 0 and at most 7 days")
    return seconds


def watch(receive: Receive, caller: Caller) -> asyncio.Task[None]:
    """End the caller's wait with ClientGone when the client disconnects. To be cancelled when the answer is there."""
    return asyncio.get_running_loop().create_task(_watch(receive, caller))


async def _watch(receive: Receive, caller: Caller) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    caller.fail(ClientGone())


def watched(send: Send, guest: Guest, clock: Clock) -> Send:
    """`send`, noting how long the guest's client takes nothing: the register cuts off one that reads no longer.

    A large body goes out in pieces, each as soon as those before are taken: nobody counts what a transport holds.
    """

    async def sending(message: Message) -> None:
        body: bytes = message.get("body", b"")
        starts = range(0, max(len(body) - _PIECE_BYTES, 0), _PIECE_BYTES)
        for start in starts:
            guest.blocked_since = clock.monotonic()
            await send({"type": message["type"], "body": body[start : start + _PIECE_BYTES], "more_body": True})
            await clock.sleep(0)  # in this turn nothing was written yet, so that nothing holds it back
        if starts:
            message = {**message, "body": body[len(starts) * _PIECE_BYTES :]}
        guest.blocked_since = clock.monotonic()
        await send(message)
        guest.blocked_since = None

    return sending


async def send_json(send: Send, status: int, body: bytes, headers: HeaderList = ()) -> None:
    """A whole JSON response."""
    length = b"%d" % len(body)
    head = [(b"content-type", b"application/json"), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def start_stream(send: Send, headers: HeaderList) -> None:
    """The head of an event stream."""
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def send_part(send: Send, part: bytes, *, more: bool = True) -> None:
    """A piece of the body."""
    await send({"type": "http.response.body", "body": part, "more_body": more})


def problem_headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    """Its own, and Retry-After in whole seconds, rounded up."""
    if problem.retry_after_seconds is None:
        return list(problem.headers)
    return [(b"retry-after", b"%d" % max(1, math.ceil(problem.retry_after_seconds))), *problem.headers]
