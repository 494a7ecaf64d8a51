"""What is asked of the sink over HTTP. Keys and tenants as at the ingress (`shared/access.py`): a tenant sees its own only.

GET /v1/usage?from=&to=&by=day,tenant,...   sums of days         GET /v1/audit?home=&after=      links of a home's chain
GET /v1/usage/jobs?status=&since=&before=   rows, newest first   GET /v1/nodes/history?node=     } administrators
GET /v1/usage/jobs/{job}                    one job's lives      GET /v1/dead-letters            } only
GET /v1/top?minutes=&by=                    who used most lately     GET /v1/conversations?before=     used last first
GET /v1/logs?since=&before=                 events, newest first     GET /, /page/...                  the dashboard (`page/`)
GET /v1/acts?by=&kind=                      what administrators did
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.sink.port import Store
from services.sink.queries import QUERIES, Query
from shared.access import Access, Client, Right
from shared.clock import Clock
from shared.service.answering import Endpoint, answering, caller, unknown


class Answered(NamedTuple):
    """A route besides: what it raises is answered as the questions' errors are. `public`: it needs no key, and its caller is None."""

    path: str
    method: str
    answer: Callable[[Request, Client | None], Awaitable[Response]]
    public: bool = False


def build_api(store: Store, access: Access, clock: Clock, *, queries: int, besides: Sequence[Answered] = ()) -> Starlette:
    """The application of one sink. `queries`: answered at once."""
    turns = asyncio.Semaphore(queries)

    def endpoint(kind: type[Query]) -> Endpoint:
        async def answer(request: Request) -> Response:
            client = caller(request, access)
            query = kind.model_validate({**request.query_params, **request.path_params})
            async with turns:
                found = await query.answer(store, _tenant(client, query), clock.wall())
            return Response(to_json(found), media_type="application/json")

        return answer

    def other(one: Answered) -> Endpoint:
        async def answer(request: Request) -> Response:
            return await one.answer(request, None if one.public else caller(request, access))

        return answer

    routes = [Route(kind.path, answering(endpoint(kind)), methods=["GET"]) for kind in QUERIES]
    routes += [Route(one.path, answering(other(one)), methods=[one.method]) for one in besides]
    app = Starlette(routes=routes)
    app.router.default = unknown
    return app


def _tenant(client: Client, query: Query) -> str | None:
    """Whose documents are meant; None: everybody's. Raises Refused."""
    client.check(Right.OPERATE if query.for_administrators else Right.READ)
    if client.for_all:
        return query.tenant
    return client.tenant_of(query.tenant)
