"""The models of an Ollama server: tags (on disk), show (context length, capabilities; once a digest), ps (resident, and the window)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from services.worker.backends.base import ModelCallFailed
from services.worker.backends.foreign import ModelList, count, entries, mapping, words
from services.worker.backends.http import HttpEndpoint
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import Ability, NodeModel

_ABILITIES: tuple[Ability, ...] = ("vision", "tools", "thinking")
"""In Ollama's words too."""
_FOR_EVER = "2100"
"""A model that expires in this year, or later, was loaded with a negative `keep_alive`."""


class ShownModels:
    """Remembers what `show` said of each digest, so that a probe costs two requests; and with what window each was loaded last.

    `asked(model)`: the window that this worker asks for, None when it leaves that to the server.
    """

    def __init__(
        self,
        endpoint: HttpEndpoint,
        asked: Callable[[str], int | None] = lambda _: None,
        pinned: set[str] | None = None,
        *,
        adopts: bool = False,
    ) -> None:
        """`pinned`: names of models that are to stay. `adopts`: at the first look those are added that the endpoint keeps for ever already,
        since an earlier boot has pinned them.
        """
        self._endpoint = endpoint
        self._pinned: set[str] | None = pinned
        self._asked = asked
        self._shown: dict[str, dict[str, Any]] = {}
        self._windows: dict[str, int] = {}
        self._list = ModelList()
        self._adopts = adopts and pinned is not None

    async def list(self, *, allow_cloud: bool) -> tuple[NodeModel, ...]:
        """Models by name. Left out: a model that vanished between two requests, and an entry that cannot be read."""
        tags, _ = await self._endpoint.get_json("/api/tags")
        resident, _ = await self._endpoint.get_json("/api/ps")
        loaded: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in entries(resident.get("models")) if _is_named(entry)}
        self._adopt(entries(resident.get("models")))
        found: list[NodeModel] = []
        present = [entry for entry in entries(tags.get("models")) if allow_cloud or not mapping(entry).get("remote_host")]
        for entry in present:
            model = await self._model(entry, loaded)
            if model is not None:
                found.append(model)
        self._forget({_identity(entry) for entry in present if _is_named(entry)})
        return tuple(sorted(found, key=lambda model: model.name))

    def _adopt(self, running: Sequence[Any]) -> None:
        """Once: from then on this worker knows better than what its own calls have left."""
        if self._adopts and self._pinned is not None:
            self._pinned.update(entry["name"] for entry in running if _is_named(entry) and str(entry.get("expires_at", "")) >= _FOR_EVER)
        self._adopts = False

    async def _model(self, entry: Any, loaded: dict[str, dict[str, Any]]) -> NodeModel | None:
        shown = await self._show(entry) if _is_named(entry) else {}
        if shown is None:
            return None

        def read(entry: dict[str, Any]) -> NodeModel:
            runs = loaded.get(entry["name"])
            window = self._window(entry, mapping(runs).get("context_length"))
            model = node_model(entry, shown, runs=runs, window=window)
            return model.model_copy(update={"pinned": True}) if model.name in (self._pinned or ()) else model

        return self._list.model(entry, read)

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

    def _window(self, entry: dict[str, Any], loaded: Any) -> int | None:
        """As this worker asks (another's choice would be loaded again), else as loaded, else as the server chose the last time."""
        identity = _identity(entry)
        if count(loaded):
            self._windows[identity] = count(loaded)
        return self._asked(entry["name"]) or self._windows.get(identity)

    def _forget(self, present: set[str]) -> None:
        for identity in self._shown.keys() - present:
            del self._shown[identity]
            self._windows.pop(identity, None)


def _is_named(entry: Any) -> bool:
    return isinstance(mapping(entry).get("name"), str)


def _identity(entry: dict[str, Any]) -> str:
    return f"{entry.get('name')}@{entry.get('digest', '')}"


def node_model(entry: dict[str, Any], shown: dict[str, Any], *, runs: dict[str, Any] | None = None, window: int | None = None) -> NodeModel:
    """What one model is to a router. Servers before `capabilities` existed are taken for chat models, of which nothing more is known.

    `runs`: what `ps` says of it; None where it is not in memory.
    """
    told = [word for word in entries(shown.get("capabilities")) if isinstance(word, str)]
    capabilities = told or ["completion"]
    operations = (("chat", "generate") if "completion" in capabilities else ()) + (("embed",) if "embedding" in capabilities else ())
    longest = context_length(mapping(shown.get("model_info")))
    details = mapping(entry.get("details"))
    return NodeModel(
        name=entry["name"],
        size_bytes=entry.get("size") or 0,
        digest=words(entry.get("digest")),
        quantisation=words(details.get("quantization_level")),
        context_length=longest,
        window=min(window, longest) if window and longest else window,
        abilities={ability: ability in told for ability in _ABILITIES} if told else {},
        operations=operations or ("chat", "generate"),
        resident=runs is not None,
        loaded_bytes=count(mapping(runs).get("size")),
        vram_bytes=count(mapping(runs).get("size_vram")),
    )


def context_length(info: dict[str, Any]) -> int | None:
    """The model's own limit: the key is prefixed with its architecture."""
    found = info.get(f"{info.get('general.architecture', '')}.context_length")
    if found is None:
        found = next((value for key, value in info.items() if key.endswith(".context_length")), None)
    return count(found) or None
