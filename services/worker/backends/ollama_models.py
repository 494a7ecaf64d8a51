"""The models of an Ollama server: tags (on disk), show (context length, capabilities; once a digest), ps (resident)."""

from __future__ import annotations

from typing import Any

from services.worker.backends.base import ModelCallFailed
from services.worker.backends.http import HttpEndpoint
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import NodeModel

MAX_MODELS = 256


class ShownModels:
    """Remembers what `show` said of each digest, so that a probe costs two requests."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint
        self._shown: dict[str, dict[str, Any]] = {}

    async def list(self, *, allow_cloud: bool) -> tuple[NodeModel, ...]:
        """Models by name; a model that vanished between two requests is left out."""
        tags, _ = await self._endpoint.get_json("/api/tags")
        resident, _ = await self._endpoint.get_json("/api/ps")
        names = {entry.get("name") for entry in resident.get("models") or ()}
        found: list[NodeModel] = []
        entries = [entry for entry in tags.get("models") or () if allow_cloud or not entry.get("remote_host")][:MAX_MODELS]
        for entry in entries:
            shown = await self._show(entry)
            if shown is not None:
                found.append(node_model(entry, shown, resident=entry["name"] in names))
        self._forget({_identity(entry) for entry in entries})
        return tuple(sorted(found, key=lambda model: model.name))

    async def _show(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        identity = _identity(entry)
        if identity not in self._shown:
            try:
                self._shown[identity] = await self._endpoint.post_json("/api/show", {"model": entry["name"]})
            except ModelCallFailed as error:
                if error.kind is K.UNKNOWN_MODEL:
                    return None
                raise
        return self._shown[identity]

    def _forget(self, present: set[str]) -> None:
        for identity in self._shown.keys() - present:
            del self._shown[identity]


def _identity(entry: dict[str, Any]) -> str:
    return f"{entry.get('name')}@{entry.get('digest', '')}"


def node_model(entry: dict[str, Any], shown: dict[str, Any], *, resident: bool) -> NodeModel:
    """What one model is to a router. Servers before `capabilities` existed are taken for chat models."""
    capabilities = shown.get("capabilities") or ["completion"]
    operations = (("chat", "generate") if "completion" in capabilities else ()) + (("embed",) if "embedding" in capabilities else ())
    return NodeModel(
        name=entry["name"],
        size_bytes=entry.get("size") or 0,
        context_length=context_length(shown.get("model_info") or {}),
        operations=operations or ("chat", "generate"),
        resident=resident,
    )


def context_length(info: dict[str, Any]) -> int | None:
    """The model's own limit: the key is prefixed with its architecture."""
    found = info.get(f"{info.get('general.architecture', '')}.context_length")
    if found is None:
        found = next((value for key, value in info.items() if key.endswith(".context_length")), None)
    return found if isinstance(found, int) and found > 0 else None
