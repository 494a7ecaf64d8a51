"""`/v1/prompts`, `/v1/agents`, `/v1/profiles`, `/v1/tools`: what patterns use by name, in versions with aliases, written to the registry.

Every key may read and render; only an operator's declares. A version never changes; what is declared anew becomes `latest`. Planners
follow the registry within a second, and a job keeps what it was accepted with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.declaring import Declaring
from services.ingress.handlers import Door
from services.ingress.problems import Problem, Refused, registry_unread
from services.ingress.routes.asking import Routes, as_json, body_of, caller
from shared.agents.resolving import check_declared, member
from shared.agents.table import KINDS, Declarations, DeclarationsFull, Entries, Found, Versions
from shared.agents.templates import MOST_ITEMS, render, wrong_variables
from shared.contracts.agents import DeclaredName, Prompt, Variable
from shared.contracts.base import Text
from shared.errors import InvalidInput
from shared.estimates import likely_tokens
from shared.processing.registry import ENTRY_BYTES

RENDERED = ("prompt", "agent")
"""What has a text that a model is given."""
_RENDER_BYTES = 1024 * 1024


class _DeclarationName(BaseModel):
    """What a path must name where something is declared: no version, no alias."""

    name: DeclaredName


class AliasMove(BaseModel):
    """The body of a PUT of an alias."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(min_length=1, max_length=32)
    """Of the same name: a version, or an alias that points to it now."""


class Rendering(BaseModel):
    """What a prompt is rendered with."""

    model_config = ConfigDict(extra="forbid")

    variables: dict[Variable, Text | Annotated[list[Text], Field(max_length=MOST_ITEMS)]] = Field(default={}, max_length=32)


class _DeclarationRoutes:
    """One of each kind. Answers come from what this instance has read of the registry; what it wrote itself it knows at once."""

    def __init__(self, door: Door, declaring: Declaring, kind: str) -> None:
        self._door, self._declaring, self._kind = door, declaring, kind
        self._writing = asyncio.Lock()

    async def list(self, request: Request) -> Response:
        """All of this kind, by name, each with its latest version."""
        found = [self._table.find(self._kind, name) for name in self._table.names(self._kind)]
        return as_json(
            {f"{self._kind}s": [{k: v for k, v in self._view(each).items() if k != self._kind} for each in found]}, exclude_none=True
        )

    async def get(self, request: Request) -> Response:
        """What `name`, `name@alias` or `name@version` stands for."""
        return as_json(self._view(self._found(request)), exclude_none=True)

    async def put(self, request: Request) -> Response:
        """Declare it: the content's version is `latest` from now on. Answered once Kafka has it."""
        client = caller(self._door, request)
        name = _DeclarationName(name=str(request.path_params["name"])).name
        given = await body_of(self._door, request, KINDS[self._kind], ENTRY_BYTES)
        check_declared(self._table, name, given, self._door.offered.capabilities)
        now = self._door.clock.wall()
        await self._write(request, "declare", name, lambda: self._table.to_declare(self._kind, name, given, at=now, by=client.name))
        return as_json(self._view(self._table.find(self._kind, name)), exclude_none=True)

    async def delete(self, request: Request) -> Response:
        """Nothing of this name is declared any more; what is built in is there again, and jobs keep what they have."""
        name = self._found(request).name
        await self._write(request, "remove", name, lambda: self._table.to_remove(self._kind, name))
        return Response(status_code=204)

    async def versions(self, request: Request) -> Response:
        """All versions of a name, and where its aliases point and pointed."""
        client, found = caller(self._door, request), self._found(request)
        of_name = self._table.versions(self._kind, found.name)
        hidden = set() if client.for_all else {"by"}
        aliases = {alias: moved.model_dump(mode="json", exclude=hidden) for alias, moved in of_name.aliases.items()}
        shown = [{"version": v, "about": body.about, "aliases": _pointing(of_name, v)} for v, body in of_name.bodies.items()]
        return as_json({"name": found.name, "versions": shown, "aliases": aliases}, exclude_none=True)

    async def move(self, request: Request) -> Response:
        """Point an alias to a version."""
        client, given = caller(self._door, request), await body_of(self._door, request, AliasMove, ENTRY_BYTES)
        name, alias = self._found(request).name, str(request.path_params["alias"])
        now = self._door.clock.wall()
        moved = partial(self._table.to_move, self._kind, name, alias, given.version, at=now, by=client.name)
        await self._write(request, "move", f"{name}@{alias}", moved)
        return as_json(self._view(self._table.find(self._kind, f"{name}@{alias}")), exclude_none=True)

    async def render(self, request: Request) -> Response:
        """Of a prompt the text with these variables; of an agent what it is told, and all else that a job would pin of it now."""
        given = (await body_of(self._door, request, Rendering, _RENDER_BYTES)).variables
        found, more = self._found(request), {}
        if isinstance(found.body, Prompt):
            text = render(found.body, given)
        elif given:
            raise wrong_variables("only a prompt has variables")
        else:
            pinned = member(self._table, f"{found.name}@{found.version}", self._door.offered.capabilities)
            text, more = pinned.system or "", {"member": pinned.model_dump(mode="json", exclude_defaults=True)}
        return as_json(
            {"name": found.name, "version": found.version, "text": text, "estimated_tokens": likely_tokens(len(text)), **more},
            exclude_none=True,
        )

    @property
    def _table(self) -> Declarations:
        """Raises Refused (503) before it is read."""
        table = self._door.offered.declared
        if not table.complete():
            raise Refused(registry_unread(self._door.settings.retry_after_seconds))
        return table

    def _found(self, request: Request) -> Found:
        table = self._table
        try:
            return table.find(self._kind, str(request.path_params["name"]))
        except InvalidInput as error:
            raise Refused(Problem(404, error.code, error.message, "name")) from None

    def _view(self, found: Found) -> dict[str, Any]:
        return {
            "name": found.name,
            "version": found.version,
            "about": found.body.about,
            "aliases": _pointing(self._table.versions(self._kind, found.name), found.version),
            "built_in": not self._table.declared(self._kind, found.name).aliases,
            self._kind: found.body.model_dump(mode="json", exclude_defaults=True),
        }

    async def _write(self, request: Request, did: str, name: str, decide: Callable[[], Entries]) -> None:
        """In order, and one after the other: each is known here once Kafka has it. Raises Refused (429) where there is no room."""
        async with self._writing:
            try:
                entries = decide()
            except DeclarationsFull as error:
                raise Refused(Problem(429, error.code, error.message)) from None
            await self._declaring.write(request, did, self._kind, name, entries, known=self._table.on_entry)


def routes(door: Door, declaring: Declaring) -> Routes:
    """By path and method, of every kind."""
    found: Routes = {}
    for kind in KINDS:
        own, one = _DeclarationRoutes(door, declaring, kind), f"/v1/{kind}s/{{name}}"
        found |= {
            f"/v1/{kind}s": {"GET": own.list},
            one: {"GET": own.get, "PUT": own.put, "DELETE": own.delete},
            f"{one}/versions": {"GET": own.versions},
            f"{one}/aliases/{{alias}}": {"PUT": own.move},
        }
        if kind in RENDERED:
            found[f"{one}/render"] = {"POST": own.render}
    return found


def _pointing(of_name: Versions, version: str) -> list[str]:
    return sorted(alias for alias, moved in of_name.aliases.items() if moved.version == version)
