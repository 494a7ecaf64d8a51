"""`GET /v1/models`, `GET /v1/models/{id}`: what the registered nodes offer, and the names that leave the choice to the cluster."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.handlers import Door
from services.ingress.http.exchange import call_headers
from services.ingress.problems import Refused, unknown_model
from services.ingress.registry import AUTO_MODELS, Catalogue
from shared.contracts.chat import Operation
from shared.model_names import AUTO


class Models:
    """OpenAI's shapes."""

    def __init__(self, desk: Door) -> None:
        self._desk = desk

    async def list(self, request: Request) -> Response:
        """All models."""
        self._desk.access.identify(call_headers(request.scope).api_key)
        catalogue = self._desk.registry.catalogue
        return _json({"object": "list", "data": [_model(name, catalogue) for name in catalogue.names]})

    async def get(self, request: Request) -> Response:
        """One model."""
        self._desk.access.identify(call_headers(request.scope).api_key)
        name, catalogue = request.path_params["model"], self._desk.registry.catalogue
        found = name if name in AUTO_MODELS else catalogue.resolve(name)
        if found is None:
            raise Refused(unknown_model(name, catalogue.names))
        return _json(_model(found, catalogue))


def _model(name: str, catalogue: Catalogue) -> dict[str, Any]:
    """`available`: a live node has it; `context_length`: the largest window, tokens; `simulated`: nothing but simulators answers here."""
    available = catalogue.live_nodes > 0 if name in AUTO_MODELS else name in catalogue.live_models
    shown: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "tutti", "available": available}
    offer = catalogue.offer((AUTO if name in AUTO_MODELS else name,), Operation.CHAT)
    if offer is not None and offer.window is not None:
        shown["context_length"] = offer.window
    return shown | ({"simulated": True} if catalogue.simulated else {})


def _json(body: Any) -> Response:
    return Response(to_json(body), media_type="application/json")
