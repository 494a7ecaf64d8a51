"""What is asked of the sink over HTTP. Keys and tenants as at the ingress (`shared/access.py`): a tenant sees its own only.

GET /v1/usage?from=&to=&by=day,tenant,...   sums of days         GET /v1/audit?home=&after=      links of a home's chain
GET /v1/usage/jobs?status=&since=&before=   rows, newest first   GET /v1/nodes/history?node=     } administrators
GET /v1/usage/jobs/{job}                    one job's lives      GET /v1/dead-letters            } only
GET /v1/top?minutes=&by=                    who used most lately          GET /v1/acts?by=&kind=
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.sink.kept_acts import ActsQuery
from services.sink.port import Store, StoreAway
from services.sink.queries import AuditQuery, JobsQuery, LettersQuery, NodesQuery, OneJobQuery, Query, TopQuery, UsageQuery
from shared.access import Access, Client, Right, key_of
from shared.clock import Clock
from shared.contracts.bounds import in_words
from shared.errors import InvalidInput, NotFound, TooLarge
from shared.problem import Problem, Refused, rendered
from shared.telemetry import logs

log = logs.get(__name__)

_AGAIN_SECONDS = 2.0
_ROUTES: dict[str, type[Query]] = {
    "/v1/usage": UsageQuery,
    "/v1/usage/jobs": JobsQuery,
    "/v1/usage/jobs/{job:path}": OneJobQuery,
    "/v1/top": TopQuery,
    "/v1/audit": AuditQuery,
    "/v1/nodes/history": NodesQuery,
    "/v1/dead-letters": LettersQuery,
    "/v1/acts": ActsQuery,
}


def build_api(store: Store, access: Access, clock: Clock, *, queries: int) -> Starlette:
    """The application of one sink. `queries`: answered at once."""
    turns = asyncio.Semaphore(queries)

    def endpoint(kind: type[Query]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                client = _caller(request, access)
                query = kind.model_validate({**request.query_params, **request.path_params})
                async with turns:
                    found = await query.answer(store, _tenant(client, query), clock.wall())
            except Exception as error:
                return _refusal(_problem(error))
            return Response(to_json(found), media_type="application/json")

        return answer

    routes = [Route(path, endpoint(kind), methods=["GET"]) for path, kind in _ROUTES.items()]
    app = Starlette(routes=routes)
    app.router.default = _unknown
    return app


def _caller(request: Request, access: Access) -> Client:
    """Raises Refused."""
    return access.identify(key_of(request.headers.get("authorization"), request.headers.get("x-api-key")))


def _tenant(client: Client, query: Query) -> str | None:
    """Whose documents are meant; None: everybody's. Raises Refused."""
    client.check(Right.OPERATE if query.for_administrators else Right.READ)
    if client.for_all:
        return query.tenant
    return client.tenant_of(query.tenant)


def _problem(error: Exception) -> Problem:
    match error:
        case Refused():
            return error.problem
        case StoreAway():
            return Problem(503, error.code, error.message, None, _AGAIN_SECONDS)
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
        case _:
            log.failure("query_failed", error)
            return Problem(500, "internal", "something went wrong inside tutti")


def _refusal(problem: Problem) -> Response:
    headers = {} if problem.retry_after_seconds is None else {"retry-after": f"{problem.retry_after_seconds:.0f}"}
    return Response(rendered(problem), problem.status, headers, "application/json")


async def _unknown(scope: Any, receive: Any, send: Any) -> None:
    await _refusal(Problem(404, "not_found", "there is no such path"))(scope, receive, send)
