"""Lists of models, in each dialect's form: what the registered nodes offer, and the names that leave the choice to the cluster."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from services.ingress.dialects.port import ListForm, ModelShown
from services.ingress.handlers import Door
from services.ingress.http.exchange import call_headers
from services.ingress.problems import Refused, unknown_model
from shared.contracts.chat import Operation
from shared.model_names import AUTO


class Models:
    """One dialect's."""

    def __init__(self, door: Door, form: ListForm) -> None:
        self._door, self._form = door, form

    async def list(self, request: Request) -> Response:
        """All models."""
        self._door.access.identify(call_headers(request.scope).api_key)
        return _json(self._form.all([self._shown(name) for name in self._door.offered.models]))

    async def get(self, request: Request) -> Response:
        """One model."""
        self._door.access.identify(call_headers(request.scope).api_key)
        name = request.path_params["model"]
        found = name if self._stands_for_more(name) else self._door.registry.catalogue.resolve(name)
        if found is None:
            raise Refused(unknown_model(name, self._door.offered.models))
        return _json(self._form.one(self._shown(found)))

    def _stands_for_more(self, name: str) -> bool:
        """The name leaves the model to the cluster, or to a pattern."""
        return name == AUTO or self._door.offered.pattern_of(name) is not None

    def _shown(self, name: str) -> ModelShown:
        catalogue = self._door.registry.catalogue
        free = self._stands_for_more(name)
        available = catalogue.live_nodes > 0 if free else name in catalogue.live_models
        offer = catalogue.offer((AUTO if free else name,), Operation.CHAT)
        return ModelShown(name, available, None if offer is None else offer.window, catalogue.simulated)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
