"""The HTTP application: FastAPI for the OpenAPI page, bare ASGI for everything else."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.ingress.declaring import Declaring
from services.ingress.dialects import served
from services.ingress.handlers import Door
from services.ingress.http.cors import Origins
from services.ingress.http.exchange import Message, Receive, Scope, Send, call_headers, problem_headers
from services.ingress.http.openapi import PARAMETER, document
from services.ingress.http.resource import Endpoint, Resource, counted, send_problem
from services.ingress.problems import Problem, of_error, rendered
from services.ingress.routes import batches, conversations, declarations, erasure, events, files, keys, nodes, reviews, schedules, tenants
from services.ingress.routes.asking import Routes
from services.ingress.routes.calls import Calls
from services.ingress.routes.inquiries import endpoint
from services.ingress.routes.jobs import Jobs
from services.ingress.routes.model_tasks import TaskRoutes
from services.ingress.routes.responses import Responses
from shared import __version__
from shared.access import Right
from shared.agents.table import KINDS
from shared.processing.outbox import Outbox
from shared.scheduling.schedule_table import ScheduleTable
from shared.service import Environment
from shared.telemetry import logs

_log = logs.get(__name__)
_PATH_SHOWN = 100
_OPERATED = {"PUT": Right.OPERATE, "DELETE": Right.OPERATE, "POST": Right.READ}
"""Of what is declared: only rendering is a POST."""
_NEEDED: dict[str, dict[str, Right]] = {
    "/v1/keys": dict.fromkeys(("GET", "POST", "PUT", "DELETE"), Right.ADMINISTER),
    "/v1/nodes": dict.fromkeys(("GET", "PUT", "DELETE"), Right.OPERATE),
    "/v1/tenants": dict.fromkeys(("POST", "PUT", "DELETE"), Right.ADMINISTER),
    "/v1/model-tasks": {"POST": Right.OPERATE},
    **{f"/v1/{kind}s": _OPERATED for kind in KINDS},
}


class IngressApi(FastAPI):
    """Hands the hot path to its endpoint before any middleware; every answer says which pages may read it."""

    calls: dict[str, Calls]
    """By path: what is asked and waited for, in each dialect."""
    origins: Origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        more = self.origins.of_answer(scope["headers"])

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *more]
            await send(message)

        hot = self.calls.get(scope["path"]) if scope["method"] == "POST" else None
        if hot is not None:
            await hot(scope, receive, answer)
        else:
            await super().__call__(scope, receive, answer)

    def openapi(self) -> dict[str, Any]:
        """Written by hand from the contracts: the routes are plain ones."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self.title, self.version, served())
        return self.openapi_schema


def build_api(door: Door, environment: Environment, outbox: Outbox, table: ScheduleTable, *, pins: Collection[str]) -> IngressApi:
    """The application of one instance."""
    declaring = Declaring(door, outbox, environment.topics)
    app = IngressApi(title="tutti", version=__version__, redoc_url=None)
    app.origins, jobs = Origins(door.settings.origins), Jobs(door)
    responses = Responses(door, jobs)
    batched = {dialect.path: dialect for dialect in served() if dialect.batched}
    app.calls = {dialect.path: Calls(door, dialect, responses.later) for dialect in served()}
    tasks = TaskRoutes(door, declaring, jobs, pins)
    methods: Routes = {
        **declarations.routes(door, declaring),
        **events.routes(door),
        **files.routes(door, batched),
        **batches.routes(door, batched),
        **reviews.routes(door),
        **conversations.routes(door),
        **schedules.routes(door, declaring, table),
        **keys.routes(door, declaring),
        **nodes.routes(door, declaring, environment),
        **tenants.routes(door, declaring),
        **erasure.routes(door, declaring, table, environment),
        "/v1/model-tasks": {"POST": tasks.create},
        "/v1/jobs": {"POST": jobs.create},
        "/v1/jobs/{job}": {"GET": jobs.get, "DELETE": jobs.cancel},
        "/v1/jobs/{job}/tree": {"GET": jobs.tree},
        "/v1/responses/{response}": {"GET": responses.get, "DELETE": responses.delete},
        "/v1/responses/{response}/cancel": {"POST": responses.cancel},
    }
    for dialect in served():
        app.router.routes.append(Route(dialect.path, Resource(app.origins, dialect.problem, {"POST": app.calls[dialect.path]})))
        for inquiry in dialect.inquiries:
            need = None if inquiry.public else Right.READ
            serve = counted(PARAMETER.sub("{id}", inquiry.path), guarded(door, need, endpoint(door, inquiry)), dialect.problem)
            app.router.routes.append(Route(inquiry.path, Resource(app.origins, dialect.problem, {inquiry.method: serve})))
        for task in dialect.tasks:
            serve = counted(task.path, guarded(door, Right.OPERATE, tasks.spoken(task)), dialect.problem)
            app.router.routes.append(Route(task.path, Resource(app.origins, dialect.problem, {task.method: serve})))
    for path, endpoints in methods.items():
        label = PARAMETER.sub("{id}", path)
        asgi = {method: counted(label, guarded(door, needed(method, path), serve)) for method, serve in endpoints.items()}
        app.router.routes.append(Route(path, Resource(app.origins, rendered, asgi)))
    app.router.default = _unknown
    for kind in (HTTPException, Exception):
        app.add_exception_handler(kind, _on_error)
    return app


def needed(method: str, path: str) -> Right:
    """What a request to one of tutti's own routes needs: to look is to read, all else is to write, but for what these say."""
    for pattern, rights in _NEEDED.items():
        if path.startswith(pattern) and method in rights:
            return rights[method]
    return Right.READ if method == "GET" else Right.WRITE


def guarded(door: Door, need: Right | None, endpoint: Endpoint) -> Endpoint:
    """Only for a key that has this right; None: for everybody."""

    async def serve(request: Request) -> Response:
        door.access.identify(call_headers(request.scope).api_key).check(need or Right.READ)
        return await endpoint(request)

    return endpoint if need is None else serve


async def _unknown(scope: Scope, _receive: Receive, send: Send) -> None:
    path = f"{scope['method'][:16]} {scope['path'][:_PATH_SHOWN]}"
    await send_problem(send, Problem(404, "unknown_url", f"there is nothing at {path}; /docs shows what there is"))


async def _on_error(request: Request, error: Exception) -> Response:
    """Of FastAPI's own routes: the page of the API and its document."""
    if isinstance(error, HTTPException):
        codes = {404: "unknown_url", 405: "method_not_allowed"}
        headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
        problem = Problem(error.status_code, codes.get(error.status_code, "http_error"), str(error.detail), headers=headers)
    else:
        problem = of_error(error)
        _log.failure("request_failed", error, route=request.url.path[:_PATH_SHOWN])
    shown = {name.decode(): value.decode() for name, value in problem_headers(problem)}
    return Response(rendered(problem), problem.status, shown, media_type="application/json")
