"""`/v1/nodes`: the nodes with all that is known of them, for operators; and taking one out of service, whatever is started again."""

from __future__ import annotations

import asyncio
import re
from math import inf

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.declaring import Declaring
from services.ingress.handlers import Door
from services.ingress.http.exchange import call_headers
from services.ingress.problems import Problem, Refused
from shared.clock import within
from shared.contracts.base import ID, IN_WORDS, Label
from shared.contracts.bounds import check_depth
from shared.contracts.maintenance import KIND, Maintenance
from shared.contracts.node import Node
from shared.errors import LogError
from shared.placement.roster import LastHeard, ShownNode, heard, shown
from shared.service import Environment
from shared.telemetry import logs

log = logs.get(__name__)

_NAME = re.compile(ID)
_BODY_BYTES = 4 * 1024
_FRESH_SECONDS = 1.0
"""So long one look at who is alive serves all who ask."""
_LOOK_SECONDS = 3.0
"""What Kafka has not told by then is not known."""


class MaintenanceSubmission(BaseModel):
    """The body of `PUT /v1/nodes/{id}/maintenance`."""

    model_config = ConfigDict(extra="forbid")

    reason: Label = ""


class NodeRoutes:
    """Registrations are what this instance has read of `nodes`; who is alive is looked up in `credits` when somebody asks."""

    def __init__(self, door: Door, declaring: Declaring, environment: Environment) -> None:
        self._door, self._declaring, self._env = door, declaring, environment
        self._looking = asyncio.Lock()
        self._heard, self._looked_at = LastHeard(), -inf

    async def list(self, _: Request) -> Response:
        """All nodes, by id."""
        known = await self._look()
        nodes = sorted(self._door.registry.table.known(), key=lambda node: node.id)
        return _json({"nodes": [self._shown(node, known) for node in nodes]})

    async def get(self, request: Request) -> Response:
        """One node. 404: none of this id has registered, or it has left."""
        name = _named(request)
        found = next((node for node in self._door.registry.table.known() if node.id == name), None)
        if found is None:
            raise Refused(Problem(404, "not_found", "no node of this id is registered", "id"))
        return _json(self._shown(found, await self._look()))

    async def maintain(self, request: Request) -> Response:
        """Take it out of service, also one that is not there at present. Answered once Kafka has it; what runs there ends."""
        name, call = _named(request), call_headers(request.scope)
        async with self._door.bodies.read(request.receive, call, "default", _BODY_BYTES) as body:
            check_depth(body)
            given = MaintenanceSubmission.model_validate_json(body or b"{}")
        by = self._door.access.identify(call.api_key).name
        entry = Maintenance(by=by, at=self._door.clock.wall(), reason=given.reason)
        await self._declaring.write(request, "take out", KIND, name, {name: entry.to_bytes()})
        return _json(entry)

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


def _named(request: Request) -> str:
    """Of the path. Raises Refused (400)."""
    name = str(request.path_params["node"])
    if not _NAME.fullmatch(name):
        raise Refused(Problem(400, "invalid_name", f"a node's id has {IN_WORDS[ID]}", "id"))
    return name


def _json(body: object) -> Response:
    return Response(to_json(body, exclude_none=True), media_type="application/json")
