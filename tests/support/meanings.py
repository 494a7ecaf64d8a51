"""MemoryVectors: vector sets in memory, with the promises of Redis's that the cache needs; and an embedder whose vectors a test chooses."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence

from services.cache.port import CacheEntry
from services.cache.semantic.embedding import EmbedderAway, Embedding, embedding
from services.cache.semantic.vectors import Near
from shared.clock import Clock
from shared.errors import StoreAway
from shared.validators.questions.threshold import EntryLabel


class MemoryVectors:
    """By (embedder, partition): key → vector and labels. `away`: nothing is answered."""

    def __init__(self) -> None:
        self.sets: dict[tuple[str, str], dict[str, tuple[array[float], tuple[EntryLabel, ...]]]] = {}
        self.away = False

    async def near(self, asked: Sequence[tuple[str, str, array[float]]], most: int) -> list[list[Near]]:
        self._answer()
        return [self._near(self.sets.get((embedder, partition), {}), vector)[:most] for embedder, partition, vector in asked]

    @staticmethod
    def _near(held: Mapping[str, tuple[array[float], tuple[EntryLabel, ...]]], asked: array[float]) -> list[Near]:
        found = [
            Near(key, sum(a * b for a, b in zip(vector, asked, strict=True)), labels)
            for key, (vector, labels) in held.items()
            if len(vector) == len(asked)
        ]
        return sorted(found, key=lambda near: (-near.similarity, near.key))

    async def add(self, embedder: str, partition: str, key: str, vector: array[float], seconds: float) -> None:
        self._answer()
        self.sets.setdefault((embedder, partition), {})[key] = (vector, ())

    async def label(self, embedder: str, partition: str, key: str, labels: Sequence[EntryLabel]) -> None:
        self._answer()
        held = self.sets.get((embedder, partition), {})
        if key in held:
            held[key] = (held[key][0], tuple(labels))

    async def remove(self, which: Iterable[tuple[str, str, str]]) -> None:
        self._answer()
        for embedder, partition, key in which:
            self.sets.get((embedder, partition), {}).pop(key, None)

    async def forget(self, entries: Sequence[CacheEntry]) -> None:
        for (_, partition), held in self.sets.items():
            for entry in entries:
                if entry.meaning is not None and entry.meaning.partition == partition:
                    held.pop(entry.key, None)

    async def close(self) -> None:
        return None

    def _answer(self) -> None:
        if self.away:
            raise StoreAway("the test says so")


class ChosenEmbedder:
    """`angles`: text → degrees in a plane, so that a cosine is what a test wants; others are at 90. `numbers`: what is said instead."""

    def __init__(self, clock: Clock, angles: Mapping[str, float]) -> None:
        self._clock, self._angles = clock, angles
        self.trouble: str | None = None
        self.takes_seconds, self.version, self.calls = 0.002, "1", 0
        self.numbers: Sequence[float] | None = None

    async def run(self) -> None:
        return None

    async def embed(self, text: str) -> Embedding:
        from math import cos, radians, sin

        self.calls += 1
        if self.trouble is not None:
            raise EmbedderAway(self.trouble)
        await self._clock.sleep(self.takes_seconds)
        turned = radians(self._angles.get(text, 90.0))
        return embedding(self.numbers or (cos(turned), sin(turned)), "chosen", self.version)

    async def close(self) -> None:
        return None
