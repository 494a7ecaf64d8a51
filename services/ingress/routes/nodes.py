"""`/v1/nodes`: the nodes with all that is known of them, for operators; and taking one out of service, whatever is started again."""

from __future__ import annotations

import asyncio
from math import inf

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.declaring import Declaring
from services.ingress.handlers import Door
from services.ingress.routes.asking import Routes, as_json, body_of, caller, named, unknown
from shared.clock import within
from shared.contracts.base import ID, Label
from shared.contracts.maintenance import KIND, Maintenance
from shared.contracts.node import Node
from shared.errors import LogError
from shared.placement.roster import LastHeard, ShownNode, heard, shown
from shared.service import Environment
from shared.telemetry import logs

log = logs.get(__name__)

_BODY_BYTES = 4 * 1024
_FRESH_SECONDS = 1.0
"""So long one look at who is alive serves all who ask."""
_LOOK_SECONDS = 3.0
"""What Kafka has not told by then is not known."""


class MaintenanceSubmission(BaseModel):
    """The body of `PUT /v1/nodes/{id}/maintenance`."""

    model_config = ConfigDict(extra="forbid")

    reason: Label = ""


class _NodeRoutes:
    """Registrations are what this instance has read of `nodes`; who is alive is looked up in `credits` when somebody asks."""

    def __init__(self, door: Door, declaring: Declaring, environment: Environment) -> None:
        self._door, self._declaring, self._env = door, declaring, environment
        self._looking = asyncio.Lock()
        self._heard, self._looked_at = LastHeard(), -inf

    async def list(self, _: Request) -> Response:
        """All nodes, by id."""
        known = await self._look()
        nodes = sorted(self._door.registry.table.known(), key=lambda node: node.id)
        return as_json({"nodes": [self._shown(node, known) for node in nodes]}, exclude_none=True)

    async def get(self, request: Request) -> Response:
        """One node. 404: none of this id has registered, or it has left."""
        name = _named(request)
        found = next((node for node in self._door.registry.table.known() if node.id == name), None)
        if found is None:
            raise unknown("no node of this id is registered")
        return as_json(self._shown(found, await self._look()), exclude_none=True)

    async def maintain(self, request: Request) -> Response:
        """Take it out of service, also one that is not there at present. Answered once Kafka has it; what runs there ends."""
        name, by = _named(request), caller(self._door, request).name
        given = await body_of(self._door, request, MaintenanceSubmission, _BODY_BYTES, tenant="default", empty=b"{}")
        entry = Maintenance(by=by, at=self._door.clock.wall(), reason=given.reason)
        await self._declaring.write(request, "take out", KIND, name, {name: entry.to_bytes()})
        return as_json(entry, exclude_none=True)

    async def resume(self, request: Request) -> Response:
        """Back into service."""
        name = _named(request)
        await self._declaring.write(request, "resume", KIND, name, {name: None})
        return Response(status_code=204)

    def _shown(self, node: Node, known: LastHeard) -> ShownNode:
        return shown(node, known, self._door.clock.wall())

    async def _look(self) -> LastHeard:
        """As fresh as a second; while Kafka is slow or away what was known, else nothing."""
        async with self._looking:
            if self._door.clock.monotonic() - self._looked_at >= _FRESH_SECONDS:
                await within(_LOOK_SECONDS, self._read())
                self._looked_at = self._door.clock.monotonic()
            return self._heard

    async def _read(self) -> None:
        try:
            self._heard = await heard(self._env.log, self._env.topics, f"tutti-ingress-heard-{self._env.instance}")
        except LogError as error:
            log.warning("credits_not_read", reason=error.message)


def routes(door: Door, declaring: Declaring, environment: Environment) -> Routes:
    """By path and method."""
    own = _NodeRoutes(door, declaring, environment)
    return {
        "/v1/nodes": {"GET": own.list},
        "/v1/nodes/{node}": {"GET": own.get},
        "/v1/nodes/{node}/maintenance": {"PUT": own.maintain, "DELETE": own.resume},
    }


def _named(request: Request) -> str:
    return named(request, "node", "a node's id", ID, code="invalid_name")
