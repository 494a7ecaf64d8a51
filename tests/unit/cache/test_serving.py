"""An answer that comes while its question is asked again: in the same round, or while an answer to one alike is looked for."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from infra.lab.virtual_loop import run
from services.cache.app import build
from services.cache.semantic.embedding import Embedding, embedding
from services.cache.semantic.meanings import Meanings
from services.cache.semantic.vectors import VectorSets
from services.cache.settings import CacheSettings
from shared.contracts.base import PriorityClass
from shared.contracts.cache import CacheFill, CacheLookup, Meaning
from shared.contracts.chat import Answer
from shared.contracts.headers import envelope
from shared.contracts.outcome import CacheMissed, StepSucceeded
from shared.contracts.usage import Usage
from shared.topics import TopicSettings
from tests.support.cache_store import MemoryCache
from tests.support.meanings import ChosenEmbedder, MemoryVectors
from tests.support.stage import Stage

pytestmark = pytest.mark.usefixtures("quiet")
KEY = "a" * 64


def _fill(step: str) -> CacheFill:
    answer = Answer(text="42", model="m")
    return CacheFill(key=KEY, tenant="red", job="j", step=step, answer=answer, usage=Usage(calls=1), ttl=60.0, model="m")


def _lookup(step: str, meaning: Meaning | None = None) -> CacheLookup:
    return CacheLookup(key=KEY, tenant="red", job="j", step=step, attempt=1, home=0, priority_class=PriorityClass.STANDARD, meaning=meaning)


def _write(stage: Stage, said: CacheLookup | CacheFill) -> None:
    topic, kind = (stage.topics.lookups, "lookup") if isinstance(said, CacheLookup) else (stage.topics.fills, "fill")
    stage.write(topic, 0, said.to_bytes(), envelope(kind))


@pytest.mark.parametrize("seed", range(5))
def test_who_asks_while_a_fill_is_being_kept_is_served_and_asks_no_model(seed: int) -> None:
    async def scene() -> None:
        stage = Stage(TopicSettings(), seed=seed)
        _write(stage, _fill("leader"))
        for number in range(3):
            _write(stage, _lookup(f"s{number}"))
        stage.run("cache", build(stage.environment("cache"), CacheSettings(), MemoryCache()))
        await stage.until(lambda: len(stage.outcomes()) >= 3)
        assert not stage.outcomes(CacheMissed)
        assert {outcome.step for outcome in stage.outcomes(StepSucceeded)} == {"s0", "s1", "s2"}
        await stage.close()

    run(scene())


class _WaitsForAFill(ChosenEmbedder):
    """Knows a question's vector only when the answer to the same question has been told."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.clock, {})
        self._stage, self.asked = stage, asyncio.Event()

    async def embed(self, text: str) -> Embedding:
        self.asked.set()
        await self._stage.until(lambda: self._stage.committed(self._stage.topics.fills, group="tutti-cache") == 1)
        return embedding((1.0, 0.0), "e")


def test_what_came_while_one_alike_was_looked_for_is_found() -> None:
    async def scene() -> None:
        stage = Stage(TopicSettings())
        store, settings, embedder = MemoryCache(), CacheSettings(semantic_seconds=5.0), _WaitsForAFill(stage)
        meanings = Meanings(store, cast("VectorSets", MemoryVectors()), embedder, settings)
        stage.run("cache", build(stage.environment("cache"), settings, store, meanings))
        _write(stage, _lookup("s", Meaning(partition="b" * 64, question="How tall?")))
        await embedder.asked.wait()
        _write(stage, _fill("leader"))
        await stage.until(lambda: bool(stage.outcomes()))
        assert [type(outcome) for outcome in stage.outcomes()] == [StepSucceeded]
        await stage.close()

    run(scene())
