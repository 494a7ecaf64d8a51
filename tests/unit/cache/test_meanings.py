"""What a lookup by meaning is told: served only within its partition, past the vetoes and the threshold; anything else is a miss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import nan
from typing import Any, cast

import pytest

from infra.lab.virtual_loop import run
from services.cache.port import CacheEntry, FoundEntry
from services.cache.semantic.meanings import REMEMBERED, Meanings
from services.cache.semantic.vectors import VectorSets
from services.cache.settings import CacheSettings
from shared.clock import LoopClock
from shared.contracts.base import PriorityClass
from shared.contracts.cache import CacheLookup, Meaning
from shared.contracts.chat import Answer
from shared.contracts.usage import Usage
from shared.validators.questions.threshold import EntryLabel
from tests.support.cache_store import MemoryCache
from tests.support.meanings import ChosenEmbedder, MemoryVectors

RED, BLUE = "a" * 64, "b" * 64
STORED, SAME, OTHER = "How tall is Mount Everest?", "What is the height of Mount Everest?", "What is the height of Mount Fuji?"
ANGLES = {STORED: 0.0, SAME: 10.0, OTHER: 2.0, "How do I reset my password?": 40.0}
"""Cosines to STORED: .985, .999, .766."""


def entry(question: str = STORED, *, key: str = "1", partition: str = RED, text: str = "8,849 m", ttl: float = 60.0) -> CacheEntry:
    meaning = Meaning(partition=partition, question=question)
    return CacheEntry(
        key=key * 64, tenant="red", model="m:latest", job="j", ttl=ttl, answer=Answer(text=text, model="m"), usage=Usage(), meaning=meaning
    )


def lookup(question: str = SAME, *, step: str = "s", partition: str = RED, threshold: float | None = None, **more: Any) -> CacheLookup:
    meaning = Meaning(partition=partition, question=question, threshold=threshold)
    return CacheLookup(
        key=f"{abs(hash(question)) % 16**8:08x}" * 8,
        tenant="red",
        job=f"job-{step}",
        step=step,
        attempt=1,
        home=0,
        priority_class=PriorityClass.STANDARD,
        meaning=meaning,
        **more,
    )


class Cache:
    """With STORED in it."""

    def __init__(self, **settings: Any) -> None:
        self.clock = clock = LoopClock()
        self.store, self.vectors, self.embedder = MemoryCache(), MemoryVectors(), ChosenEmbedder(clock, ANGLES)
        chosen = CacheSettings(**{"shadow_share": 0.0, **settings})
        self.semantic = Meanings(self.store, cast("VectorSets", self.vectors), self.embedder, chosen)

    async def learn(self, *entries: CacheEntry) -> None:
        await self.store.keep(entries)
        await self.semantic.learn(entries)
        await self.clock.sleep(1.0)

    async def ask(self, question: str = SAME, **more: Any) -> str | None:
        [found] = await self.semantic.near([lookup(question, **more)])
        return None if found is None else found[0].entry.key[0]

    @property
    def labels(self) -> tuple[EntryLabel, ...]:
        return next(labels for held in self.vectors.sets.values() for key, (_, labels) in held.items() if key[0] == "1")


def with_cache(test: Callable[[Cache], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        cache = Cache(**settings)
        running = asyncio.create_task(cache.semantic.run())
        await cache.learn(entry())
        await test(cache)
        running.cancel()

    run(main())


def test_a_paraphrase_is_served_with_its_similarity() -> None:
    async def test(cache: Cache) -> None:
        [found] = await cache.semantic.near([lookup()])
        assert found is not None
        assert isinstance(found[0], FoundEntry)
        assert found[1] == pytest.approx(0.985, abs=0.001)

    with_cache(test)


def test_a_near_miss_is_not_however_similar() -> None:
    async def test(cache: Cache) -> None:
        assert await cache.ask(OTHER) is None

    with_cache(test)


def test_behind_a_nearer_near_miss_the_right_entry_is_found() -> None:
    async def test(cache: Cache) -> None:
        await cache.learn(entry("How tall is Mount Fuji?", key="2"))
        cache.embedder._angles = {**ANGLES, SAME: 12.0}
        cache.vectors.sets[next(iter(cache.vectors.sets))]["2" * 64] = (
            (await cache.embedder.embed(SAME)).vector,
            (),
        )
        assert await cache.ask() == "1"

    with_cache(test)


def test_another_partition_is_never_looked_at_even_if_a_set_holds_a_foreign_entry() -> None:
    async def test(cache: Cache) -> None:
        assert await cache.ask(partition=BLUE) is None
        [(by, _)] = cache.vectors.sets
        cache.vectors.sets[by, BLUE] = cache.vectors.sets[by, RED]
        assert await cache.ask(partition=BLUE) is None

    with_cache(test)


def test_below_the_threshold_nothing_and_a_request_only_raises_it() -> None:
    async def test(cache: Cache) -> None:
        assert await cache.ask(threshold=0.99) is None
        assert await cache.ask(threshold=0.1) == "1"

    async def high(cache: Cache) -> None:
        assert await cache.ask(threshold=0.1) is None

    with_cache(test)
    with_cache(high, threshold=0.99)


def test_what_expired_was_barred_or_is_too_old_is_not_served_and_a_gone_vector_is_taken_away() -> None:
    async def test(cache: Cache) -> None:
        assert await cache.ask(max_age=0.5) is None
        assert await cache.ask(max_age=50.0) == "1"
        await cache.store.bar("1" * 64, 10.0)
        assert await cache.ask() is None
        assert [held for held in cache.vectors.sets.values() if held] == []

    with_cache(test)


@pytest.mark.parametrize("wrong", ["away", "slow", "zero", "nan", "dimension", "version", "store", "vectors"])
def test_whatever_is_away_late_or_nonsense_is_a_miss_within_the_time(wrong: str) -> None:
    async def test(cache: Cache) -> None:
        embedder = cache.embedder
        match wrong:
            case "away":
                embedder.trouble = "it is away"
            case "slow":
                embedder.takes_seconds = 3.0
            case "version":
                embedder.version = "2"
            case "store":
                cache.store.away = True
            case "vectors":
                cache.vectors.away = True
            case _:
                embedder.numbers = {"zero": (0.0, 0.0), "nan": (nan, 1.0), "dimension": (1.0, 0.0, 0.0)}[wrong]
        before = asyncio.get_running_loop().time()
        assert await cache.ask() is None
        assert asyncio.get_running_loop().time() - before <= 0.071
        assert await cache.semantic.near([lookup(), lookup(OTHER)]) == [None, None]

    with_cache(test)


def test_a_question_is_embedded_once_and_what_is_remembered_is_bounded() -> None:
    async def test(cache: Cache) -> None:
        for _ in range(3):
            await cache.ask()
        assert cache.embedder.calls == 2
        await cache.semantic.near([lookup(f"What is item {number}?", step=f"{number}") for number in range(REMEMBERED + 50)])
        assert len(cache.semantic._known) <= REMEMBERED
        assert await cache.ask("x" * 501) is None

    with_cache(test, semantic_seconds=30.0)


def test_a_vector_that_comes_too_late_is_there_for_the_next_one() -> None:
    """One call of a slow embedder, however often the question comes meanwhile."""

    async def test(cache: Cache) -> None:
        cache.embedder.takes_seconds = 1.0
        assert [await cache.ask() for _ in range(3)] == [None] * 3
        await cache.clock.sleep(1.0)
        assert await cache.ask() == "1"
        assert cache.embedder.calls == 2

    with_cache(test)


def test_a_drawn_hit_is_answered_by_a_model_and_labels_the_entry() -> None:
    """The caller gets the model's answer, and the entry learns whether it would have been right."""

    async def test(cache: Cache) -> None:
        asked = lookup()
        assert await cache.semantic.near([asked]) == [None]
        await cache.learn(entry(SAME, key=asked.key[0], text="8849 m!").changed(key=asked.key))
        assert [label.right for label in cache.labels] == [False], "another number"
        again = lookup(step="again")
        await cache.semantic.near([again])
        await cache.learn(entry(SAME, text="8,849 M").changed(key=again.key))
        assert cache.embedder.calls == 2, "nothing of equal words is embedded"

    with_cache(test, shadow_share=1.0)


def test_answers_of_other_words_are_compared_by_their_vectors() -> None:
    async def test(cache: Cache) -> None:
        asked = lookup()
        cache.embedder._angles = {**ANGLES, "8,849 m": 0.0, "It is 8,849 metres high.": 20.0}
        await cache.semantic.near([asked])
        await cache.learn(entry(SAME, text="It is 8,849 metres high.").changed(key=asked.key))
        assert [label.right for label in cache.labels] == [True]

    with_cache(test, shadow_share=1.0)


def test_a_wrong_label_raises_what_the_entry_asks_for() -> None:
    async def test(cache: Cache) -> None:
        [(by, partition)] = cache.vectors.sets
        await cache.vectors.label(by, partition, "1" * 64, [EntryLabel(0.984, False)])
        assert await cache.ask() is None
        await cache.vectors.label(by, partition, "1" * 64, [EntryLabel(0.9, False)])
        assert await cache.ask() == "1"

    with_cache(test)
