"""One path of the API: an endpoint for each method, OPTIONS and 405 with `Allow`, and every error as a typed object. Bare ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from services.ingress.http.cors import Origins
from services.ingress.http.exchange import HeaderList, Receive, Scope, Send, problem_headers, send_json
from services.ingress.problems import ClientGone, Problem, of_error, rendered
from shared.telemetry import logs, metrics

_log = logs.get(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]
Render = Callable[[Problem], bytes]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

CLIENT_GONE = 499
"""Counted as this status; nobody is there to read it."""


class Resource:
    """`endpoints` by method. HEAD is GET without the body. `render`: a problem, in the path's dialect."""

    def __init__(self, origins: Origins, render: Render, endpoints: Mapping[str, Asgi]) -> None:
        self._origins, self._render = origins, render
        self._endpoints = {**endpoints} | ({"HEAD": endpoints["GET"]} if "GET" in endpoints else {})
        self._allow = ", ".join(sorted({*self._endpoints, "OPTIONS"})).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is not None:
            await endpoint(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            headers = [(b"allow", self._allow), *self._origins.of_preflight(scope["headers"], self._allow)]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            message = f"{scope['method'][:16]} is not allowed here; allowed: {self._allow.decode()}"
            await send_problem(send, Problem(405, "method_not_allowed", message, headers=((b"allow", self._allow),)), (), self._render)


def counted(route: str, endpoint: Endpoint, render: Render = rendered) -> Asgi:
    """Count and time; what the endpoint raises becomes its problem."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with metrics.HTTP_SECONDS.labels(route).time():
                response = await endpoint(Request(scope, receive, send))
        except Exception as error:
            status = await refuse(send, error, route, render=render)
        else:
            status = response.status_code
            if scope["method"] == "HEAD":  # the head alone: an event stream would go on for ever, seen by nobody
                await send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                await response(scope, receive, send)
        metrics.HTTP_REQUESTS.labels(route, str(status)).inc()

    return serve


async def refuse(send: Send, error: Exception, route: str, headers: HeaderList = (), render: Render = rendered) -> int:
    """Answer with what was raised; returns the status. `headers` come besides."""
    if isinstance(error, ClientGone):
        return CLIENT_GONE
    problem = of_error(error)
    if problem.status == 500:
        _log.failure("request_failed", error, route=route)
    await send_problem(send, problem, headers, render)
    return problem.status


async def send_problem(send: Send, problem: Problem, headers: HeaderList = (), render: Render = rendered) -> None:
    """The problem as an answer."""
    await send_json(send, problem.status, render(problem), [*problem_headers(problem), *headers])
