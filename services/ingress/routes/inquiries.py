"""Inquiries of the dialects, each in its form: what the registered nodes offer, and what else their clients want to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from services.ingress.dialects.port import Inquired, Inquiry, ModelShown
from services.ingress.handlers import Door
from services.ingress.http.exchange import call_headers
from services.ingress.http.resource import Endpoint
from services.ingress.problems import Refused, unknown_model
from shared.access import OPEN
from shared.contracts.bounds import check_depth
from shared.contracts.chat import Operation
from shared.contracts.node import NodeModel
from shared.model_names import AUTO


def endpoint(door: Door, inquiry: Inquiry) -> Endpoint:
    """What answers one inquiry. Raises Refused and all that its `render` raises."""

    async def serve(request: Request) -> Response:
        call, known = call_headers(request.scope), _Known(door)
        client = OPEN if inquiry.public else door.access.identify(call.api_key)
        if inquiry.method == "GET":
            return Response(inquiry.render(Inquired(known, request.path_params, b"")), media_type=inquiry.media)
        async with door.bodies.read(request.receive, call, client.named(call.tenant), door.settings.body_bytes) as body:
            check_depth(body)
            return Response(inquiry.render(Inquired(known, request.path_params, body)), media_type=inquiry.media)

    return serve


class _Known(NamedTuple):
    door: Door

    def all(self) -> list[ModelShown]:
        """Every name, those that leave the choice to the cluster first, those that only embed last: many clients take the first one."""
        copies = self._copies()
        shown = [self._shown(name, copies) for name in self.door.offered.models]
        return sorted(shown, key=lambda one: one.operations == {Operation.EMBED.value})

    def one(self, name: str) -> ModelShown:
        """Raises Refused (404)."""
        found = name if self._stands_for_more(name) or name in self.door.offered.models else self.door.registry.catalogue.resolve(name)
        if found is None:
            raise Refused(unknown_model(name, self.door.offered.models))
        return self._shown(found, self._copies())

    def _copies(self) -> dict[str, list[NodeModel]]:
        """Of each model, as its nodes have it."""
        found: dict[str, list[NodeModel]] = {}
        for node in self.door.registry.table:
            for model in node.models:
                found.setdefault(model.name, []).append(model)
        return found

    def _stands_for_more(self, name: str) -> bool:
        """The name leaves the model to the cluster, or to a pattern."""
        return name == AUTO or self.door.offered.pattern_of(name) is not None

    def _shown(self, name: str, all_copies: Mapping[str, Sequence[NodeModel]]) -> ModelShown:
        """A name with a card as the first of its models that some node has, which answers now."""
        catalogue = self.door.registry.catalogue
        free = self._stands_for_more(name)
        meant = (name,) if name in catalogue.models else self.door.offered.meant(name)
        there = [found for each in meant if (found := catalogue.resolve(each)) is not None] or [name]
        first = next((each for each in there if each in catalogue.live_models), there[0])
        copies = all_copies.get(first, ())
        available = catalogue.live_nodes > 0 if free else first in catalogue.live_models
        offer = catalogue.offer((AUTO if free else first,), Operation.CHAT)
        window = (None if offer is None else offer.window) or self.door.offered.window(name)
        shown = ModelShown(name, available, window, catalogue.simulated)
        if free or not copies:
            return shown
        digests, quantisations = ({getattr(copy, told) for copy in copies} for told in ("digest", "quantisation"))
        return shown._replace(
            size=max(copy.size_bytes for copy in copies),
            digest=digests.pop() if len(digests) == 1 else "",
            quantisation=quantisations.pop() if len(quantisations) == 1 else "",
            abilities=frozenset(ability for copy in copies for ability, able in copy.abilities.items() if able),
            operations=frozenset(operation for copy in copies for operation in copy.operations),
            resident=any(copy.resident for copy in copies),
        )
