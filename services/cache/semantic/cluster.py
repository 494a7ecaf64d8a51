"""Embedding by the cluster's own nodes: a job like anybody's, of tenant `tutti-cache`: there are its tokens and costs, and an
administrator's limits bound them. It never asks the cache itself. The question stands in the history once more, under that tenant.
"""

from __future__ import annotations

from services.cache.semantic.embedding import EmbedderAway, Embedding, embedding
from shared.contracts.base import PriorityClass
from shared.contracts.cache import CacheControl
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Status
from shared.errors import Overloaded
from shared.model_names import canonical
from shared.service.asking import Asking

TENANT = "tutti-cache"
PATIENCE_SECONDS = 5.0
"""A vector that comes later is of no use to anybody."""


class ClusterEmbedder:
    """Implements `Embedder`."""

    def __init__(self, asking: Asking, model: str) -> None:
        self._asking = asking
        self._fields = {"tenant": TENANT, "model": canonical(model), "cache": CacheControl(mode="off"), "limits": Limits(attempts=1)}
        self.run = asking.run

    @property
    def trouble(self) -> str | None:
        return None if self._asking.listens else "replies are not read yet"

    async def embed(self, text: str) -> Embedding:
        try:
            result = await self._asking.ask(
                Job(**self._fields, texts=(text,), deadline_seconds=PATIENCE_SECONDS), PriorityClass.INTERACTIVE
            )
        except Overloaded as error:
            raise EmbedderAway(error.message) from error
        answer = result.answer
        if result.status is not Status.SUCCEEDED or answer is None or len(answer.embeddings) != 1 or answer.model is None:
            raise EmbedderAway(f"the embed job has {result.status.value} without one vector")
        return embedding(answer.embeddings[0], "cluster", canonical(answer.model), answer.digest or "", str(answer.simulated))

    async def close(self) -> None:
        return None
