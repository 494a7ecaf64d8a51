"""Answering: what services that are asked over HTTP have in common: who calls, what he sent, and how he is refused."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from shared.access import Access, Client, key_of
from shared.contracts.bounds import in_words
from shared.errors import InvalidInput, NotFound, TooLarge, TuttiError
from shared.problem import Problem, Refused, rendered
from shared.telemetry import logs

log = logs.get(__name__)

_AGAIN_SECONDS = 2.0
_BODY_BYTES = 64 * 1024


def caller(request: Request, access: Access) -> Client:
    """Raises Refused."""
    return access.identify(key_of(request.headers.get("authorization"), request.headers.get("x-api-key")))


def administrator(client: Client) -> Client:
    """Raises Refused."""
    if not client.admin:
        raise Refused(Problem(403, "admin_only", "this needs an administrator's key"))
    return client


async def body_of(request: Request) -> bytes:
    """Raises TooLarge."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_BYTES:
            raise TooLarge(f"the body has more than {_BODY_BYTES} bytes")
    return body


def problem_of(error: Exception) -> Problem:
    """Whatever was raised. What nobody raises on purpose is logged, and told as nothing more than that."""
    match error:
        case Refused():
            return error.problem
        case ValidationError():
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            return Problem(400, "invalid_input", f"{place}: {in_words(first['msg'])}" if place else in_words(first["msg"]), place or None)
        case TooLarge():
            return Problem(413, error.code, error.message)
        case NotFound():
            return Problem(404, error.code, error.message)
        case InvalidInput():
            return Problem(400, error.code, error.message)
        case TuttiError(retryable=True):
            return Problem(503, error.code, error.message, None, _AGAIN_SECONDS)
        case _:
            log.failure("query_failed", error)
            return Problem(500, "internal", "something went wrong inside tutti")


def refusal(problem: Problem) -> Response:
    """As a response."""
    headers = {} if problem.retry_after_seconds is None else {"retry-after": f"{problem.retry_after_seconds:.0f}"}
    return Response(rendered(problem), problem.status, headers, "application/json")


async def unknown(scope: Any, receive: Any, send: Any) -> None:
    """Of any other path."""
    await refusal(Problem(404, "not_found", "there is no such path"))(scope, receive, send)
