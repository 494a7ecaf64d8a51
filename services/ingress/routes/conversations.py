"""`GET /v1/conversations`, `GET/PUT/DELETE /v1/conversations/{id}`: what was said, what is known of it, and that it be forgotten.

What is written goes to the conversation's owner; the answer waits for his event. The memory is one body: who writes it says on which one
his own is based, so of two at the same time one is told that there is another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Any, TypeVar

from pydantic import ConfigDict, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.handlers import Door
from services.ingress.problems import Problem, Refused, kafka_away
from services.ingress.replies.register import Following, WaitKind
from services.ingress.routes.asking import Routes, as_json, body_of, caller, client_of, json_stream, named, number_of, reader_of, unknown
from services.ingress.routes.telling import told
from shared.access import Client
from shared.contracts import ids
from shared.contracts.base import ID, Contract
from shared.contracts.blob import BlobRef
from shared.contracts.conversation import ConversationChanged, ConversationDropped, ConversationSet, Memory, Note, Turn
from shared.conversations import memory_size
from shared.errors import LogError
from shared.processing.blobs import BlobGone

_MOST_SHOWN = 1_000
_TURNS, _MOST_TURNS = 50, 1_000
"""Of one export, where the caller does not say how many; and at most."""
_EXPORT_BYTES = 8 * 1024 * 1024
_MEMORY_BYTES = 256 * 1024
_MOST_NOTED = 4_000
"""Characters of all facts and preferences: every model of the conversation reads them, small windows too."""
_SHOWN = {"at", "messages"}

Body = TypeVar("Body", bound=Contract)


class MemorySubmission(Contract):
    """The body of a PUT: what is given is so from now on, what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    facts: tuple[Note, ...] | None = Field(default=None, max_length=64)
    preferences: tuple[Note, ...] | None = Field(default=None, max_length=32)


class _ConversationRoutes:
    """Answers come from what this instance has read of `job-events`, and from blobs."""

    def __init__(self, door: Door) -> None:
        self._door, self._known = door, door.events.conversations

    async def list(self, request: Request) -> Response:
        """Those that the caller may see, used last first, without their texts."""
        client = caller(self._door, request)
        seen = (known for known in self._known if client.may_see(known.tenant))
        return as_json({"conversations": [_view(known) for known in islice(seen, _MOST_SHOWN)]})

    async def get(self, request: Request) -> Response:
        """All that is kept of one: `?turns=` newest turns word for word, oldest first, the summary, the facts, the preferences."""
        door, (client, tenant, name) = self._door, self._asked(request)
        known, most = self._found(client, tenant, name), number_of(request, "turns", _TURNS, _MOST_TURNS)
        head = {**_view(known), **(await self._memory(known)).model_dump(mode="json")}
        reader = reader_of(door, WaitKind.END, tenant)
        return json_stream(door, reader, self._exported(reader, head, known, most))

    async def _exported(self, reader: Following, head: dict[str, Any], known: ConversationChanged, most: int) -> AsyncIterator[bytes]:
        """Its bytes count until the reader has it. What cannot be read now is as what was not asked for: there is more."""
        turns, more = await self._turns(reader, known, most)
        said = [{"job": ids.public(turn.job), **turn.model_dump(mode="json", exclude_none=True, include=_SHOWN)} for turn in turns]
        yield to_json({**head, "messages_of": said, "more": more})

    async def put(self, request: Request) -> Response:
        """Set facts and preferences; begins the conversation where there is none. 409: somebody else has, at the same time."""
        _, tenant, _ = self._asked(request)
        name = named(request, "conversation", "a conversation's name", ID)
        given = await body_of(self._door, request, MemorySubmission, _MEMORY_BYTES)
        known = self._known.get(tenant, name)
        before = Memory() if known is None else await self._memory(known)
        memory = before.changed(**{field: value for field, value in given if value is not None})
        if sum(map(len, (*memory.facts, *memory.preferences))) > _MOST_NOTED:
            raise Refused(Problem(400, "invalid_input", f"facts and preferences have at most {_MOST_NOTED} characters together", "facts"))
        based_on = None if known is None or known.memory is None else known.memory.digest
        lies = await self._door.kept(tenant, memory.to_bytes())
        if lies.digest != based_on:
            said = ConversationSet(tenant=tenant, conversation=name, memory=lies, memory_size=memory_size(memory), based_on=based_on)
            if not await self._tell(said, lambda: self._digest(tenant, name) not in (None, based_on)):
                return as_json({"id": name, "state": "not known yet"}, 202)
            if self._digest(tenant, name) != lies.digest:
                raise Refused(Problem(409, "conversation_changed", "what is known was written anew at the same time: look at it again"))
        return as_json({"id": name, **memory.model_dump(mode="json")})

    async def delete(self, request: Request) -> Response:
        """Nothing of it is read any more; what a turn on its way says is not kept. The texts themselves go with their blobs, in days."""
        client, tenant, name = self._asked(request)
        self._found(client, tenant, name)
        said = ConversationDropped(tenant=tenant, conversation=name)
        done = await self._tell(said, lambda: self._is_empty(tenant, name))
        return Response(status_code=204) if done else as_json({"id": name, "state": "not known yet"}, 202)

    def _digest(self, tenant: str, name: str) -> str | None:
        known = self._known.get(tenant, name)
        return None if known is None or known.memory is None else known.memory.digest

    def _is_empty(self, tenant: str, name: str) -> bool:
        known = self._known.get(tenant, name)
        return known is None or (known.newest is None and known.memory is None and (known.current is None or known.current.void))

    async def _tell(self, said: ConversationSet | ConversationDropped, done: Callable[[], bool]) -> bool:
        return await told(self._door, said, f"#conversation/{said.tenant}/{said.conversation}", done)

    async def _memory(self, known: ConversationChanged) -> Memory:
        return (known.memory and await self._read(known.tenant, known.memory, Memory)) or Memory()

    async def _turns(self, reader: Following, known: ConversationChanged, most: int) -> tuple[deque[Turn], bool]:
        """Oldest first; and whether there are older ones."""
        found: deque[Turn] = deque()
        lies, size = known.newest, 0
        while lies is not None and len(found) < most and size + lies.size <= _EXPORT_BYTES:
            await self._door.bodies.hold(reader, lies.size)
            try:
                turn = await self._read(known.tenant, lies, Turn)
            except (Refused, LogError):
                break
            if turn is None:  # retention
                return found, False
            found.appendleft(turn)
            size += lies.size
            lies = turn.before
        return found, lies is not None

    async def _read(self, tenant: str, lies: BlobRef, kind: type[Body]) -> Body | None:
        try:
            async with asyncio.timeout(self._door.settings.accept_seconds):
                return kind.model_validate_json(await self._door.blobs.fetch(tenant, lies))
        except BlobGone:
            return None
        except TimeoutError:
            raise Refused(kafka_away(self._door.settings.retry_after_seconds)) from None

    def _asked(self, request: Request) -> tuple[Client, str, str]:
        return *client_of(self._door, request), str(request.path_params["conversation"])

    def _found(self, client: Client, tenant: str, name: str) -> ConversationChanged:
        """Raises Refused (404): unknown and not his look alike."""
        known = self._known.get(tenant, name)
        if known is None or not client.may_see(tenant):
            raise unknown("there is no such conversation")
        return known


def routes(door: Door) -> Routes:
    """By path and method."""
    own = _ConversationRoutes(door)
    return {
        "/v1/conversations": {"GET": own.list},
        "/v1/conversations/{conversation}": {"GET": own.get, "PUT": own.put, "DELETE": own.delete},
    }


def _view(known: ConversationChanged) -> dict[str, Any]:
    current = known.current
    running = None if current is None else ids.public(current.job)
    return {
        "id": known.conversation, "tenant": known.tenant, "turns": known.ended, "running": running, "waiting": len(known.waiting),
        "changed_at": known.at,
    }  # fmt: skip
