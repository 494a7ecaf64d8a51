"""Answering: what services that are asked over HTTP have in common: who calls, what he sent, and how he is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from shared.access import Access, Client, key_of, load
from shared.contracts import erased
from shared.contracts.keys import KIND
from shared.errors import TooLarge, TuttiError
from shared.problem import Problem, rendered
from shared.processing.erasing import Erase, Erasing
from shared.processing.registry import follow_registry
from shared.service import Environment
from shared.service.known_problems import BODY_SECONDS, internal, of_known, too_slow
from shared.telemetry import logs

log = logs.get(__name__)

_AGAIN_SECONDS = 2.0
_BODY_BYTES = 64 * 1024

Endpoint = Callable[[Request], Awaitable[Response]]


def keys_of(environment: Environment, keys_file: str, service: str, erase: Erase) -> tuple[Access, Callable[[], Coroutine[Any, Any, None]]]:
    """All keys that a service knows: those of its file, of the registry, an issuer's; and what follows them, to be run. `erase`: what the
    service holds of a tenant goes (`Erasing`), as the registry says.
    """
    log_, clock, topics = environment.log, environment.clock, environment.topics
    keys, erasing = load(keys_file, clock, service), Erasing(clock, erase)
    client_id = f"tutti-{service}-registry-{environment.instance}"
    kinds = {KIND: keys.on_entry, erased.KIND: erasing.on_entry}
    tail = follow_registry(log_, clock, topics, client_id=client_id, service=service, kinds=kinds)
    keys.complete = tail.caught_up

    async def follow() -> None:
        async with asyncio.TaskGroup() as group:
            for part in (tail.run(), erasing.run(), keys.run()):
                group.create_task(part)

    return keys, follow


def caller(request: Request, access: Access) -> Client:
    """Raises Refused."""
    return access.identify(key_of(request.headers.get("authorization"), request.headers.get("x-api-key")))


async def body_of(request: Request) -> bytes:
    """Raises TooLarge; Refused (408) where it does not arrive in time."""
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _BODY_BYTES:
                    raise TooLarge(f"the body has more than {_BODY_BYTES} bytes")
    except TimeoutError:
        raise too_slow("the body did not arrive", BODY_SECONDS) from None
    return body


def problem_of(error: Exception) -> Problem:
    """Whatever was raised. What nobody raises on purpose is logged, and told as nothing more than that."""
    if (known := of_known(error)) is not None:
        return known
    match error:
        case TimeoutError():
            return Problem(503, "log_unavailable", "Kafka does not answer", None, _AGAIN_SECONDS)
        case TuttiError(retryable=True):  # Overloaded, too (429 at the ingress): who looks has no limit that he exceeds, the page is full
            again = getattr(error, "retry_after_seconds", None)
            return Problem(503, error.code, error.message, None, _AGAIN_SECONDS if again is None else again)
        case _:
            log.failure("query_failed", error)
            return internal()


def refusal(problem: Problem) -> Response:
    """As a response."""
    headers = {"x-content-type-options": "nosniff", **{name.decode(): value.decode() for name, value in problem.headers}}
    if problem.retry_after_seconds is not None:
        headers["retry-after"] = f"{problem.retry_after_seconds:.0f}"
    return Response(rendered(problem), problem.status, headers, "application/json")


def answering(serve: Endpoint) -> Endpoint:
    """The same; what it raises is its answer."""

    async def answer(request: Request) -> Response:
        try:
            return await serve(request)
        except Exception as error:
            return refusal(problem_of(error))

    return answer


async def unknown(scope: Any, receive: Any, send: Any) -> None:
    """Of any other path."""
    await refusal(Problem(404, "not_found", "there is no such path"))(scope, receive, send)
