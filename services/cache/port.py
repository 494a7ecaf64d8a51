"""What the cache keeps, and what it needs of the store that keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from pydantic import ConfigDict

from shared.contracts.base import Contract, JobId, Label, ModelName, Tenant
from shared.contracts.cache import CacheFill, Fingerprint, Lifetime, Marks, Meaning
from shared.contracts.chat import Answer, Served
from shared.contracts.usage import Usage

FORM = 1
"""Of entries. What is of another form is not there."""
BARRED: Literal["barred"] = "barred"


class CacheEntry(Contract):
    """An answer that may be served again. Its age is the store's to say: so no two clocks are compared."""

    form: Literal[1] = 1
    key: Fingerprint
    tenant: Tenant
    model: ModelName
    job: JobId
    ttl: Lifetime
    answer: Answer
    usage: Usage
    tags: Marks = ()
    documents: Marks = ()
    meaning: Meaning | None = None

    @classmethod
    def of(cls, fill: CacheFill) -> CacheEntry:
        """All that has the same name in both."""
        return cls.of_valid(**{name: getattr(fill, name) for name in cls.model_fields if name != "form"})


class FoundEntry(NamedTuple):
    """An entry, and how long it has been there."""

    entry: CacheEntry
    age_seconds: float

    def answer(self, kind: Literal["exact", "semantic"] = "exact", similarity: float | None = None) -> Answer:
        """As it is served."""
        served = Served(
            kind=kind, entry=self.entry.key, similarity=similarity, age_seconds=max(0.0, self.age_seconds), saved=self.entry.usage
        )
        return self.entry.answer.model_copy(update={"served": served})


Finding = FoundEntry | Literal["barred"] | None


class Purge(Contract):
    """Which entries: all that is named must hold."""

    model_config = ConfigDict(extra="forbid")

    tenant: Tenant | None = None
    model: ModelName | None = None
    tag: Label | None = None
    document: Label | None = None

    def holds(self, entry: CacheEntry) -> bool:
        """Whether it is one of them."""
        return (
            self.tenant in (None, entry.tenant)
            and self.model in (None, entry.model)
            and (self.tag is None or self.tag in entry.tags)
            and (self.document is None or self.document in entry.documents)
        )


class CacheStore(Protocol):
    """All raise StoreAway, within the time that the store was made with, whatever it did instead of what it was asked for."""

    async def find(self, keys: Sequence[str]) -> list[Finding]:
        """One a key, in their order. What is no valid entry of that key is None, and is taken away."""
        ...

    async def keep(self, entries: Sequence[CacheEntry]) -> None:
        """In the place of what is there."""
        ...

    async def purge(self, which: Purge, *, dry: bool) -> int:
        """Take these away; `dry`: only count them. However long that takes."""
        ...

    async def bar(self, key: str, seconds: float) -> bool:
        """Neither serve this entry nor take one in its place for so long; whether there was one."""
        ...

    async def stats(self) -> Mapping[str, int]:
        """Entries, barred, bytes, the most bytes, evicted."""
        ...

    async def ping(self) -> None:
        """Whether it is there."""
        ...

    async def close(self) -> None: ...
