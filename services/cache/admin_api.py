"""What is asked of a cache over HTTP, by administrators (`shared/access.py`). The store is all instances' own, so that any of them does it.

POST /v1/cache/purge {"tenant", "model", "tag", "document", "dry_run": true}   how many entries, and away with them unless it is dry
POST /v1/cache/bar   {"entry", "seconds"}                                      neither served nor taken in again for so long
GET  /v1/cache                                                                 entries, bytes, evicted
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import Field
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.cache.port import CacheStore, Purge
from shared.access import Access, Right
from shared.clock import Clock
from shared.contracts.act import Act
from shared.contracts.base import Contract
from shared.contracts.cache import Fingerprint, Lifetime
from shared.errors import InvalidInput
from shared.service.answering import Endpoint, answering, body_of, caller, unknown
from shared.telemetry import logs

log = logs.get(__name__)


class _PurgeOrder(Purge):
    """Dry unless it says otherwise."""

    dry_run: bool = True


class _BarOrder(Contract):
    """An entry as answers name it (`served.entry`)."""

    entry: Fingerprint
    seconds: Lifetime = Field(default=86_400.0)


Tell = Callable[[Act], Awaitable[object]]


def build_admin(store: CacheStore, access: Access, clock: Clock, tell: Tell) -> Starlette:
    """The application of one cache. `tell`: returns when Kafka has who is about to do what."""

    async def act(request: Request, did: str, name: str, tenant: str | None = None) -> None:
        await tell(Act(by=caller(request, access).name, did=did, kind="cache", name=name, tenant=tenant, at=clock.wall()))

    async def purge(request: Request) -> dict[str, Any]:
        order = _PurgeOrder.model_validate_json(await body_of(request))
        which = Purge(**{name: getattr(order, name) for name in Purge.model_fields})
        if which == Purge():
            raise InvalidInput("say of which tenant, model, tag or document: of all is not meant by saying nothing")
        if not order.dry_run:
            await act(request, "purge", which.model or which.tag or which.document or "", which.tenant)
        count = await store.purge(which, dry=order.dry_run)
        log.info("cache_purged", entries=count, dry=order.dry_run)
        return {"entries": count, "dry_run": order.dry_run}

    async def bar(request: Request) -> dict[str, Any]:
        order = _BarOrder.model_validate_json(await body_of(request))
        await act(request, "bar", order.entry)
        was_there = await store.bar(order.entry, order.seconds)
        log.info("cache_entry_barred", entry=order.entry, seconds=order.seconds)
        return {"entry": order.entry, "was_there": was_there}

    async def stats(_: Request) -> dict[str, Any]:
        return dict(await store.stats())

    def endpoint(answer: Callable[[Request], Awaitable[dict[str, Any]]]) -> Endpoint:
        async def serve(request: Request) -> Response:
            caller(request, access).check(Right.ADMINISTER)
            return Response(to_json(await answer(request)), media_type="application/json")

        return answering(serve)

    routes = [Route(path, endpoint(order), methods=["POST"]) for path, order in (("/v1/cache/purge", purge), ("/v1/cache/bar", bar))]
    app = Starlette(routes=[*routes, Route("/v1/cache", endpoint(stats))])
    app.router.default = unknown
    return app
