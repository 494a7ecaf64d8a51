"""Embedders: a text's vector, and by which model. What is no vector (a zero, another number of them) is as good as none."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite, sqrt
from typing import NamedTuple, Protocol

from shared.errors import TuttiError

_LONGEST_VECTOR = 4_096
"""Numbers. A longer one does not fit into a record as it is."""


class EmbedderAway(TuttiError):
    """There is no vector, or none in time."""

    code = "embedder_away"
    retryable = True


class Embedding(NamedTuple):
    """Of length 1. `by`: a digest of the model and its version; those of others are not comparable."""

    vector: array[float]
    by: str

    def cosine(self, other: Embedding) -> float | None:
        """None where they are not comparable."""
        if self.by != other.by or len(self.vector) != len(other.vector):
            return None
        return sum(a * b for a, b in zip(self.vector, other.vector, strict=True))


class Embedder(Protocol):
    """Whoever asks bounds the time."""

    @property
    def trouble(self) -> str | None:
        """Why it embeds nothing at present."""
        ...

    async def run(self) -> None:
        """What it does beside: for ever, or until it is warm."""
        ...

    async def embed(self, text: str) -> Embedding:
        """Raises EmbedderAway."""
        ...

    async def close(self) -> None: ...


def embedding(numbers: Sequence[float], *model: str) -> Embedding:
    """`model`: all that tells it from others. Raises EmbedderAway for nonsense."""
    length = sqrt(sum(number * number for number in numbers))
    if not 2 <= len(numbers) <= _LONGEST_VECTOR or not isfinite(length) or length < 1e-6:
        raise EmbedderAway("what the embedder answers is no vector")
    by = blake2b(repr((len(numbers), *model)).encode(), digest_size=8).hexdigest()
    return Embedding(array("f", [number / length for number in numbers]), by)
