"""The HTTP application: FastAPI for the OpenAPI page and typed errors, bare ASGI for the one path that must be fast."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.ingress import answers_openai, dialect_tutti
from services.ingress.exchange import Receive, Scope, Send, problem_headers
from services.ingress.handlers import Desk
from services.ingress.openapi import document
from services.ingress.problems import ClientGone, Problem, of_error
from services.ingress.routes import chat
from services.ingress.routes.chat import ChatCompletions
from services.ingress.routes.events import JobEvents
from services.ingress.routes.jobs import Jobs
from services.ingress.routes.models import Models
from services.ingress.routes.schedules import ScheduleRoutes
from services.ingress.routes.tenants import TenantRoutes
from shared.errors import TuttiError
from shared.telemetry import logs, metrics

_log = logs.get(__name__)
_OPENAI_PATHS = ("/v1/chat/", "/v1/models")


class IngressApi(FastAPI):
    """Hands the hot path to its endpoint before any middleware; FastAPI does the rest."""

    hot: ChatCompletions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == chat.ROUTE and scope["method"] == "POST":
            await self.hot(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Written by hand from the contracts: the routes are plain ones."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self.title, self.version)
        return self.openapi_schema


def build_api(desk: Desk, version: str, tenants: TenantRoutes, schedules: ScheduleRoutes) -> IngressApi:
    """The application of one instance."""
    app = IngressApi(title="tutti", version=version, redoc_url=None)
    app.hot = ChatCompletions(desk)
    jobs, events, models = Jobs(desk), JobEvents(desk), Models(desk)
    app.router.routes.extend(
        [
            Route(chat.ROUTE, app.hot, methods=["POST"]),
            Route("/v1/models", _counted("/v1/models", models.list)),
            Route("/v1/models/{model:path}", _counted("/v1/models/{model}", models.get)),
            Route("/v1/jobs", _counted("/v1/jobs", jobs.create), methods=["POST"]),
            Route("/v1/jobs/{job}", _counted("/v1/jobs/{id}", jobs.get)),
            Route("/v1/jobs/{job}", _counted("/v1/jobs/{id}", jobs.cancel), methods=["DELETE"]),
            Route("/v1/jobs/{job}/events", _counted("/v1/jobs/{id}/events", events.get)),
            Route("/v1/schedules", _counted("/v1/schedules", schedules.list)),
            Route("/v1/schedules/{schedule}", _counted("/v1/schedules/{id}", schedules.get)),
            Route("/v1/schedules/{schedule}", _counted("/v1/schedules/{id}", schedules.put), methods=["PUT"]),
            Route("/v1/schedules/{schedule}", _counted("/v1/schedules/{id}", schedules.delete), methods=["DELETE"]),
            Route("/v1/tenants", _counted("/v1/tenants", tenants.list)),
            Route("/v1/tenants/{tenant}", _counted("/v1/tenants/{id}", tenants.get)),
            Route("/v1/tenants/{tenant}", _counted("/v1/tenants/{id}", tenants.put), methods=["PUT"]),
            Route("/v1/tenants/{tenant}", _counted("/v1/tenants/{id}", tenants.delete), methods=["DELETE"]),
        ]
    )
    for kind in (TuttiError, ValidationError, HTTPException):
        app.add_exception_handler(kind, _on_error)
    return app


def _counted(route: str, endpoint: Any) -> Any:
    """Count and time; problems become typed JSON here, so that they are counted by their status too."""

    async def counted(request: Request) -> Response:
        with metrics.HTTP_SECONDS.labels(route).time():
            try:
                response: Response = await endpoint(request)
            except HTTPException:
                raise
            except Exception as error:
                response = await _on_error(request, error)
        metrics.HTTP_REQUESTS.labels(route, str(response.status_code)).inc()
        return response

    return counted


async def _on_error(request: Request, error: Exception) -> Response:
    """Typed JSON in the dialect of the path."""
    if isinstance(error, ClientGone):
        return Response(status_code=chat.CLIENT_GONE)
    problem = _of_http(error) if isinstance(error, HTTPException) else of_error(error)
    if problem.status == 500:
        _log.failure("request_failed", error, route=request.url.path)
    openai = request.url.path.startswith(_OPENAI_PATHS)
    body = answers_openai.problem(problem) if openai else dialect_tutti.problem(problem)
    headers = {name.decode(): value.decode() for name, value in problem_headers(problem)}
    return Response(body, problem.status, headers, media_type="application/json")


def _of_http(error: HTTPException) -> Problem:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    return Problem(error.status_code, codes.get(error.status_code, "http_error"), str(error.detail))
