"""Meanings: which entry, if any, answers a question that is worded otherwise; and what its labels learn of it.

    question ─► vector ─► nearest of its partition ─► entry still there? ─► vetoes ─► threshold ─► hit
                                                                                         └─► miss, and the candidate is remembered
    fill of a missed step ─► its vector is added; the candidate's answer is compared with the real one: a label

A drawn share of hits is answered as a miss too: the caller gets a model's answer, and the label tells how often a hit would have been
false. Nothing here raises: whatever is away, late or nonsense is a counted miss.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

from services.cache.port import CacheEntry, CacheStore, Finding, FoundEntry
from services.cache.redis_store import RedisCache
from services.cache.semantic.cluster import ClusterEmbedder
from services.cache.semantic.embedding import Embedder, EmbedderAway, Embedding
from services.cache.semantic.local import LocalEmbedder
from services.cache.semantic.vectors import Near, VectorSets
from services.cache.settings import CacheSettings
from shared.contracts.cache import CacheLookup
from shared.errors import StoreAway
from shared.processing.outbox import Outbox
from shared.processing.tries import Tries
from shared.service import Environment
from shared.service.asking import Asking
from shared.tasks import ended
from shared.telemetry import metrics
from shared.validators.questions.terms import LONGEST
from shared.validators.questions.threshold import ALIKE, EntryLabel, alike, chance_to_ask, kept
from shared.validators.questions.vetoes import veto

CANDIDATES = 4
"""Nearest entries that are looked at: of a family of near misses the right one need not be the nearest."""
LEAST_SIMILARITY = 0.6
"""Below, nothing is worth a label."""
REMEMBERED = 2_000
"""Questions' vectors, and candidates of missed steps."""
LEARN_SECONDS = 5.0
_WAITING = 1_000
"""Fills that are to be learnt; of more only the answer is kept."""
_ANSWER = 1_000
"""Characters of an answer that are compared by their vector."""


Hit = tuple[FoundEntry, float] | None


class _Passed(NamedTuple):
    """An entry that was near a question which a model then answered. `drawn`: it would have been served."""

    near: Near
    by: str
    drawn: bool


class Meanings:
    """Semantic lookups. Raises nothing: what it cannot say is no hit. Bounded in time by itself."""

    def __init__(self, store: CacheStore, vectors: VectorSets, embedder: Embedder, settings: CacheSettings) -> None:
        self._store, self._vectors, self._embedder, self._settings = store, vectors, embedder, settings
        self._known: OrderedDict[str, Embedding] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[Embedding]] = {}
        self._candidates: OrderedDict[str, _Passed] = OrderedDict()
        """By the key of the lookup that missed."""
        self._gone: list[tuple[str, str, str]] = []
        """Vectors whose entries are no more: embedder, partition, key."""
        self._learning: asyncio.Queue[CacheEntry] = asyncio.Queue(_WAITING)
        self._tries = Tries()

    @property
    def trouble(self) -> str | None:
        """Why it finds nothing at present."""
        return self._embedder.trouble

    async def run(self) -> None:
        """What it does beside, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._embedder.run())
            group.create_task(self._learn_forever())

    async def close(self) -> None:
        await ended(*self._under_way.values())
        await self._embedder.close()
        await self._vectors.close()

    # Asking

    async def near(self, lookups: Sequence[CacheLookup]) -> list[Hit]:
        """Of each, whose `meaning` is set, an entry that may be served to it and its similarity; one a lookup, in their order."""
        try:
            async with asyncio.timeout(self._settings.semantic_seconds):
                return await self._near(lookups)
        except (TimeoutError, StoreAway) as error:
            metrics.CACHE_MEANINGS.labels("store" if isinstance(error, StoreAway) else "late").inc(len(lookups))
            return [None] * len(lookups)

    async def _near(self, lookups: Sequence[CacheLookup]) -> list[Hit]:
        made = await asyncio.gather(*(self._embedded(lookup) for lookup in lookups))
        asked = [(lookup, vector) for lookup, vector in zip(lookups, made, strict=True) if vector is not None]
        nears = await self._vectors.near([(vector.by, _partition(lookup), vector.vector) for lookup, vector in asked], CANDIDATES)
        nears = [[one for one in near if one.similarity >= LEAST_SIMILARITY] for near in nears]
        keys = list({one.key: None for near in nears for one in near})
        findings = dict(zip(keys, await self._store.find(keys), strict=True)) if keys else {}
        chosen = {id(lookup): self._choose(lookup, vector.by, near, findings) for (lookup, vector), near in zip(asked, nears, strict=True)}
        if self._gone:
            gone, self._gone = self._gone, []
            await self._vectors.remove(gone)
        return [chosen.get(id(lookup)) for lookup in lookups]

    async def _embedded(self, lookup: CacheLookup) -> Embedding | None:
        assert lookup.meaning is not None
        if len(lookup.meaning.question) > LONGEST:
            metrics.CACHE_MEANINGS.labels("long").inc()
            return None
        try:
            return await self._vector(lookup.meaning.question)
        except EmbedderAway:
            metrics.CACHE_MEANINGS.labels("embedder").inc()
            return None

    async def _vector(self, text: str) -> Embedding:
        """Whoever gives up waiting does not stop it: what it comes to is remembered, for the fill or who asks next."""
        if (known := self._known.get(text)) is not None:
            self._known.move_to_end(text)
            return known
        task = self._under_way.get(text)
        if task is None:
            task = self._under_way[text] = asyncio.create_task(self._embed(text))
            task.add_done_callback(partial(self._embedded_now, text))
        return await asyncio.shield(task)

    async def _embed(self, text: str) -> Embedding:
        try:
            async with asyncio.timeout(LEARN_SECONDS):
                with metrics.CACHE_EMBED_SECONDS.time():
                    return await self._embedder.embed(text)
        except TimeoutError:
            raise EmbedderAway("there was no vector in time") from None

    def _embedded_now(self, text: str, task: asyncio.Task[Embedding]) -> None:
        del self._under_way[text]
        if not task.cancelled() and task.exception() is None:
            self._known[text] = task.result()
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _choose(
        self, lookup: CacheLookup, by: str, nears: Sequence[Near], findings: Mapping[str, Finding]
    ) -> tuple[FoundEntry, float] | None:
        """The first that nothing speaks against."""
        outcome = "none"
        for near in nears:
            finding = findings[near.key]
            if not isinstance(finding, FoundEntry) or not _belongs(lookup, finding):
                self._gone.append((by, _partition(lookup), near.key))
                continue
            if lookup.max_age is not None and finding.age_seconds > lookup.max_age:
                continue
            reason = veto(lookup.meaning.question, finding.entry.meaning.question)  # type: ignore[union-attr]
            if reason is not None:
                outcome = f"veto_{reason.value}"
                continue
            if self._serves(lookup, by, near):
                metrics.CACHE_MEANINGS.labels("hit").inc()
                return finding, near.similarity
            outcome = "asked"
            break
        metrics.CACHE_MEANINGS.labels(outcome).inc()
        return None

    def _serves(self, lookup: CacheLookup, by: str, near: Near) -> bool:
        """By the threshold, and unless it is drawn. What is not served is remembered: the model's answer will tell."""
        settings, asked = self._settings, lookup.meaning.threshold or 0.0  # type: ignore[union-attr]
        chance = chance_to_ask(near.similarity, near.labels, static=max(settings.threshold, asked), error=settings.error_share)
        may = near.similarity >= asked and _drawn(lookup, "ask") >= chance
        drawn = may and _drawn(lookup, "shadow") < settings.shadow_share
        if not may or drawn:
            self._candidates[lookup.key] = _Passed(near, by, drawn)
            if len(self._candidates) > REMEMBERED:
                self._candidates.popitem(last=False)
        return may and not drawn

    # Learning

    async def learn(self, entries: Sequence[CacheEntry]) -> None:
        """These are kept, each with a `meaning`. Returns at once."""
        for entry in entries:
            if len(entry.meaning.question) <= LONGEST and not self._learning.full():  # type: ignore[union-attr]
                self._learning.put_nowait(entry)

    async def _learn_forever(self) -> None:
        while True:
            entry = await self._learning.get()
            with self._tries.chore("learning"):
                try:
                    async with asyncio.timeout(LEARN_SECONDS):
                        await self._learn(entry)
                except (TimeoutError, StoreAway, EmbedderAway):
                    metrics.CACHE_MEANINGS.labels("not_learnt").inc()

    async def _learn(self, entry: CacheEntry) -> None:
        assert entry.meaning is not None
        if (candidate := self._candidates.pop(entry.key, None)) is not None:
            await self._label(entry, candidate)
        vector = await self._vector(entry.meaning.question)
        await self._vectors.add(vector.by, entry.meaning.partition, entry.key, vector.vector, entry.ttl)

    async def _label(self, entry: CacheEntry, candidate: _Passed) -> None:
        """Was the candidate's answer the right one?"""
        assert entry.meaning is not None
        [finding] = await self._store.find([candidate.near.key])
        if isinstance(finding, FoundEntry):
            one, other = entry.answer.text, finding.entry.answer.text
            right = alike(one, other)
            if right is None:
                vectors = [await self._embedder.embed(text[:_ANSWER]) for text in (one, other)]
                right = (vectors[0].cosine(vectors[1]) or 0.0) >= ALIKE
            metrics.CACHE_LABELS.labels("hit" if candidate.drawn else "miss", "right" if right else "wrong").inc()
            labels = kept(candidate.near.labels, EntryLabel(candidate.near.similarity, right))
            await self._vectors.label(candidate.by, entry.meaning.partition, candidate.near.key, labels)


def _partition(lookup: CacheLookup) -> str:
    assert lookup.meaning is not None
    return lookup.meaning.partition


def _belongs(lookup: CacheLookup, found: FoundEntry) -> bool:
    """The set's name says it already; but an entry is only what somebody has written."""
    return found.entry.meaning is not None and found.entry.meaning.partition == _partition(lookup)


def _drawn(lookup: CacheLookup, why: str) -> float:
    """From 0 to below 1, by the step: the same whoever asks again."""
    return int.from_bytes(blake2b(f"{why}/{lookup.job}/{lookup.step}".encode(), digest_size=6).digest()) / 2**48


def build_meanings(environment: Environment, settings: CacheSettings, store: CacheStore, outbox: Outbox) -> Meanings | None:
    """As the settings have it; None without a store or an embedder. Raises ConfigurationError."""
    if not settings.store or not settings.embedder:
        return None
    vectors = VectorSets(settings, environment.topics.settings.prefix)
    if isinstance(store, RedisCache):
        store.purged = vectors.forget
    if settings.embedder == "local":
        return Meanings(store, vectors, LocalEmbedder(settings.embedder_path), settings)
    return Meanings(store, vectors, ClusterEmbedder(Asking(environment, outbox, "cache"), settings.embedder_model), settings)
