"""The node's disk as Ollama manages it: pull, delete, copy. What was fetched stays when a client leaves or the server dies, and a pull goes
on behind it. Files come from `Parameters.library`, at `pull_gb_per_second`; several pulls of one model share what is fetched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from math import isinf
from typing import Any

from infra.lab.simulators.ollama.errors import ConnectionDropped, OllamaError, bad_request, model_not_found
from infra.lab.simulators.ollama.parameters import GIGABYTE, ModelParameters, Parameters
from infra.lab.simulators.ollama.requests import find_model
from infra.lab.simulators.ollama.truth import Truth
from shared.clock import Clock
from shared.model_names import canonical

_TICK_SECONDS = 0.06
"""Between two lines of progress, as Ollama has it."""


class Library:
    """Of one node. `models` is what lies there whole."""

    def __init__(self, parameters: Parameters, clock: Clock, truth: Truth) -> None:
        self._node, self._clock, self._truth = parameters, clock, truth
        self.models: tuple[ModelParameters, ...] = parameters.models
        self.partial: dict[str, int] = {}
        """Name → bytes that are there of it."""
        self._lives = 0

    def restart(self) -> None:
        """The server dies: what is being pulled breaks off, what has been fetched stays."""
        self._lives += 1

    async def pull(self, request: Any) -> AsyncIterator[dict[str, Any]]:
        """The lines of POST /api/pull. Raises OllamaError 400, ConnectionDropped."""
        name = _named(request)
        yield {"status": "pulling manifest"}
        model = find_model(self._node.with_(models=self._node.library), name)
        if model is None:
            yield {"error": "pull model manifest: file does not exist"}
            return
        if find_model(self._node.with_(models=self.models), name) is None:
            async for line in self._fetch(model):
                yield line
            self.models = (*self.models, model)
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        yield {"status": "success"}

    async def _fetch(self, model: ModelParameters) -> AsyncIterator[dict[str, Any]]:
        key, total = canonical(model.name), model.weights_bytes
        digest = sha256(key.encode()).hexdigest()
        line = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": total}
        life = self._lives
        rate = self._node.pull_gb_per_second * GIGABYTE
        while (there := self.partial.get(key, 0)) < total:
            yield line | {"completed": there}
            if not isinf(rate):
                await self._clock.sleep(min(_TICK_SECONDS, (total - there) / rate))
            if life != self._lives:
                raise ConnectionDropped
            fetched = min(total - there, total if isinf(rate) else max(1, int(rate * _TICK_SECONDS)))
            self._truth.pulled_bytes += fetched
            self.partial[key] = self.partial.get(key, 0) + fetched
        self.partial.pop(key, None)
        yield line | {"completed": total}

    def delete(self, request: Any) -> str:
        """DELETE /api/delete. The name of what is gone. Raises OllamaError 400, 404."""
        model = self._known(_named(request))
        self.models = tuple(each for each in self.models if each is not model)
        return model.name

    def copy(self, request: Any) -> None:
        """POST /api/copy. Raises OllamaError 400, 404."""
        source, destination = (request.get(field) if isinstance(request, dict) else None for field in ("source", "destination"))
        if not isinstance(source, str) or not isinstance(destination, str) or not source or not destination:
            raise bad_request("source and destination are required")
        model = self._known(source).named(destination)
        self.models = (*(each for each in self.models if canonical(each.name) != canonical(destination)), model)

    def _known(self, name: str) -> ModelParameters:
        model = find_model(self._node.with_(models=self.models), name)
        if model is None:
            raise model_not_found(canonical(name))
        return model


def _named(request: Any) -> str:
    name = (request.get("model") or request.get("name")) if isinstance(request, dict) else None
    if not isinstance(name, str) or not name:
        raise OllamaError(400, "model is required")
    return name
