"""The HTTP side of a service: FastStream's ASGI application with /healthz, /readyz and /metrics, and the service's own application
for every other path.

FastStream matches its few routes by string comparison and hands over; the shell adds no middleware, so a request to the ingress
costs about two microseconds more than without it (`infra/decisions/0001-faststream-shell.md` has the figures).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from faststream.asgi import AsgiFastStream, AsgiResponse
from faststream.asgi.response import JSONResponse
from prometheus_client import make_asgi_app

from shared.service import Readiness

Asgi = Callable[[Any, Any, Any], Any]
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


class Application(AsgiFastStream):
    """A FastStream application that may have no FastStream broker: log processors read through `shared.kafka`."""

    def __init__(self, *, alive: Callable[[], bool], readiness: Callable[[], Readiness], own: Asgi | None, lifespan: Lifespan) -> None:
        routes: tuple[tuple[str, Asgi], ...] = (("/healthz", _health(alive)), ("/readyz", _ready(readiness)), ("/metrics", make_asgi_app()))
        super().__init__(asgi_routes=routes, logger=None, lifespan=lifespan)
        self._own = own

    @asynccontextmanager
    async def start_lifespan_context(self, run_extra_options: Any = None) -> AsyncGenerator[None, None]:
        """FastStream's own refuses to start without a broker; with one its order is kept."""
        if self.brokers:
            async with super().start_lifespan_context(run_extra_options):
                yield
        else:
            async with self.lifespan_context():
                yield

    async def not_found(self, scope: Any, receive: Any, send: Any) -> None:
        """Every path that is not the shell's."""
        if self._own is None:
            await super().not_found(scope, receive, send)
        else:
            await self._own(scope, receive, send)


def _health(alive: Callable[[], bool]) -> Asgi:
    """200 while the event loop answers and the service's task runs: what a supervisor restarts by."""

    async def healthz(scope: Any, receive: Any, send: Any) -> None:
        living = alive()
        response = AsgiResponse(b"ok\n" if living else b"the service has ended\n", 200 if living else 503)
        await response(scope, receive, send)

    return healthz


def _ready(readiness: Callable[[], Readiness]) -> Asgi:
    """200 when the service takes work, else 503 with the reasons: what a load balancer routes by."""

    async def readyz(scope: Any, receive: Any, send: Any) -> None:
        state = readiness()
        response = JSONResponse({"ready": state.ready, "reasons": list(state.reasons)}, 200 if state.ready else 503)
        await response(scope, receive, send)

    return readyz
