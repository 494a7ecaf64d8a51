"""Declaring: the one way from a route into the registry. Who does it is told on `acts` first (`shared.processing.acts`)."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from services.ingress.handlers import Door
from services.ingress.http.exchange import call_headers
from shared.contracts import budget, keys
from shared.contracts.act import Act
from shared.contracts.headers import envelope
from shared.kafka.port import Message
from shared.processing.acts import told
from shared.processing.outbox import Outbox
from shared.processing.registry import OnEntry, registry_key
from shared.topics import Topics

_TYPES = {budget.KIND: "tenant_limits", keys.KIND: "api_key"}
"""Kinds of entries whose messages are called otherwise."""


def _nobody(_kind: str, _name: str, _value: bytes | None) -> None: ...


class Declaring:
    """Writes of one instance."""

    def __init__(self, door: Door, outbox: Outbox, topics: Topics) -> None:
        self._door, self._outbox, self._topics = door, outbox, topics

    async def write(
        self, request: Request, did: str, kind: str, name: str, entries: Mapping[str, bytes | None], *, tenant: str | None = None,
        known: OnEntry = _nobody,
    ) -> None:  # fmt: skip
        """Who calls does this with `name`: entries by their names, without a value they are removed. `known` is told of each that Kafka
        has; when all are there this returns.
        """
        await self.tell(request, did, kind, name, tenant=tenant)
        for entry, value in entries.items():
            await self.put(kind, entry, value)
            known(kind, entry, value)

    async def tell(self, request: Request, did: str, kind: str, name: str, *, tenant: str | None = None) -> None:
        """Of what is done otherwise than by one entry."""
        by = self._door.access.identify(call_headers(request.scope).api_key).name
        await self._outbox.send(told(self._topics, Act(by=by, did=did, kind=kind, name=name, tenant=tenant, at=self._door.clock.wall())))

    async def put(self, kind: str, entry: str, value: bytes | None) -> None:
        """One entry, whose act is told."""
        await self._outbox.send(Message(self._topics.registry, value, registry_key(kind, entry), 0, envelope(_TYPES.get(kind, kind))))
