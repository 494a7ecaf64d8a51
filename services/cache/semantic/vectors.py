"""Vectors of entries' questions, in Redis's vector sets: one set a partition and embedder, so that nothing else is ever compared.

`tutti:<prefix>cache-near1:<embedder>:<partition>` → entry's key → vector, with its labels as attributes. A set lives as long as the entry
in it that lives longest, and is evicted whole; more than a bound of vectors are not kept in it. An entry that has expired leaves its
vector behind until a lookup meets it. `tutti:<prefix>cache-embedders`: whose sets there are, for purges.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field, InstanceOf, TypeAdapter

from services.cache.port import CacheEntry
from services.cache.settings import CacheSettings
from shared.redis_client import ANYTHING, MANY, NUMBER, RedisStore, formed
from shared.validators.questions.threshold import MOST_LABELS, EntryLabel

_FORM = 1
_MOST_EMBEDDERS = 16
_LABELS: TypeAdapter[dict[str, tuple[EntryLabel, ...]]] = TypeAdapter(dict[str, tuple[EntryLabel, ...]])
_NEAREST = TypeAdapter(list[InstanceOf[Exception] | dict[str, tuple[float, Any]] | Annotated[list[Any], Field(max_length=0)]])
"""Of each what went wrong, or element → (score, attributes), as RESP3 has it; an empty list where there is no such set."""
_NAMES = TypeAdapter(list[str])
_MEMBERS = TypeAdapter(set[str])
_SECONDS = 2.0
_SURPLUS = 8
"""Taken away at once where there are too many."""


class Near(NamedTuple):
    """An entry's key, the cosine of both vectors, and what is known of earlier ones."""

    key: str
    similarity: float
    labels: tuple[EntryLabel, ...]


class VectorSets(RedisStore):
    """All raise StoreAway. Whoever asks for the nearest bounds the time."""

    def __init__(self, settings: CacheSettings, prefix: str) -> None:
        self._most, self._prefix = settings.vectors, prefix
        super().__init__(settings.store, connections=settings.store_connections, timeout_seconds=_SECONDS)

    async def near(self, asked: Sequence[tuple[str, str, array[float]]], most: int) -> list[list[Near]]:
        """Of each (embedder, partition, vector) the nearest, the most similar first; none where Redis refuses, as of another dimension."""
        pipeline = self.redis.pipeline(transaction=False)
        for embedder, partition, vector in asked:
            name = _set(self._prefix, embedder, partition)
            pipeline.execute_command("VSIM", name, "FP32", vector.tobytes(), "WITHSCORES", "WITHATTRIBS", "COUNT", most)
        return [_near(one) for one in await self.asked(pipeline.execute(raise_on_error=False), _NEAREST, _SECONDS)]

    async def add(self, embedder: str, partition: str, key: str, vector: array[float], seconds: float) -> None:
        """`seconds`: how long its entry lives."""
        name, left = _set(self._prefix, embedder, partition), max(1, round(seconds))
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.sadd(_embedders(self._prefix), embedder)
        pipeline.execute_command("VADD", name, "FP32", vector.tobytes(), key, "CAS", "NOQUANT")
        pipeline.expire(name, left, nx=True).expire(name, left, gt=True)
        pipeline.execute_command("VCARD", name)
        *_, count = await self.asked(pipeline.execute(), MANY, _SECONDS)
        over = formed(count, NUMBER) - self._most
        if over > 0:
            surplus = await self.asked(self.redis.execute_command("VRANDMEMBER", name, over + _SURPLUS), _NAMES, _SECONDS)
            await self.remove([(embedder, partition, one) for one in surplus if one != key])

    async def label(self, embedder: str, partition: str, key: str, labels: Sequence[EntryLabel]) -> None:
        """In the place of those that it had; nothing where it is gone."""
        said = _LABELS.dump_json({"labels": tuple(labels)})
        name = _set(self._prefix, embedder, partition)
        await self.asked(self.redis.execute_command("VSETATTR", name, key, said), ANYTHING, _SECONDS)

    async def remove(self, which: Iterable[tuple[str, str, str]]) -> None:
        """Of each its embedder, partition and key."""
        pipeline = self.redis.pipeline(transaction=False)
        for embedder, partition, key in which:
            pipeline.execute_command("VREM", _set(self._prefix, embedder, partition), key)
        await self.asked(pipeline.execute(), ANYTHING, _SECONDS)

    async def forget(self, entries: Sequence[CacheEntry]) -> None:
        """Purged ones' vectors, of whatever embedder."""
        embedders = await self.asked(self.redis.smembers(_embedders(self._prefix)), _MEMBERS, _SECONDS)
        meant = [(entry.meaning.partition, entry.key) for entry in entries if entry.meaning is not None]
        await self.remove([(embedder, *one) for one in meant for embedder in sorted(embedders)[:_MOST_EMBEDDERS]])


def _set(prefix: str, embedder: str, partition: str) -> str:
    return f"tutti:{prefix}cache-near{_FORM}:{embedder}:{partition}"


def _embedders(prefix: str) -> str:
    return f"tutti:{prefix}cache-embedders"


def _near(answer: Exception | dict[str, tuple[float, Any]] | list[Any]) -> list[Near]:
    """A score is (1 + cosine) / 2."""
    if not isinstance(answer, dict):
        return []
    found = [Near(key, 2 * score - 1, _labels(said)) for key, (score, said) in answer.items()]
    return sorted(found, key=lambda near: (-near.similarity, near.key))


def _labels(said: Any) -> tuple[EntryLabel, ...]:
    try:
        return _LABELS.validate_json(said)["labels"][-MOST_LABELS:] if said else ()
    except (ValueError, KeyError):
        return ()
