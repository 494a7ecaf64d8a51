"""What the sink needs of its store: upserts that may be repeated, sums that may not, and what it asks when it begins.

Neither transactions, change streams nor validators: one document is the largest thing that changes at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

USAGE, TOTALS, AUDIT, NODES, LETTERS, TALKS = "usage", "totals", "audit", "nodes", "dead_letters", "conversations"
ACTS = "acts"
OF_TENANTS = (USAGE, TALKS)
"""What goes when a tenant is erased."""
OFFSET_DIGITS = 19
"""Of an offset as text, so that the larger one sorts behind."""
Document = dict[str, Any]


@dataclass(slots=True)
class Upsert:
    """A document as far as one write knows it. Each field's value follows from the log alone, so that writing it again, in another write or
    by another sink, changes nothing. `fields`: path → value; `least`, `most`: kept if smaller, larger.
    """

    collection: str
    id: str
    fields: Document = field(default_factory=dict)
    least: Document = field(default_factory=dict)
    most: Document = field(default_factory=dict)


class _Amount(NamedTuple):
    """What one record adds to a total."""

    offset: int
    values: Mapping[str, int]


@dataclass(slots=True)
class Sum:
    """A total of one home: of it only one sink may add, and each record once. `fields` say what it is a total of."""

    id: str
    fields: Document
    amounts: list[_Amount] = field(default_factory=list)
    expires_at: datetime | None = None


@dataclass(slots=True)
class JobLife:
    """One use of a job's id, as far as it must be known to place what comes: from the acceptance at `offset` on (NOWHERE: not seen).
    `settled`: offset of its end.
    """

    offset: int
    tenant: str | None = None
    settled: int | None = None
    steps: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Step → (agent, model)."""
    conversation: str | None = None


NOWHERE = -1


class Begun(NamedTuple):
    """What is in force where reading begins."""

    epoch: int | None
    chain: str


class Writes:
    """One write: one upsert a document."""

    def __init__(self) -> None:
        self._upserts: dict[tuple[str, str], Upsert] = {}
        self._sums: dict[str, Sum] = {}

    def upsert(self, collection: str, id_: str) -> Upsert:
        """The document of this id, as far as it is in this write."""
        found = self._upserts.get((collection, id_))
        if found is None:
            found = self._upserts[collection, id_] = Upsert(collection, id_)
        return found

    def add(self, id_: str, fields: Document, expires_at: datetime | None, offset: int, values: Mapping[str, int]) -> None:
        """What the record at `offset` adds to a total."""
        found = self._sums.get(id_)
        if found is None:
            found = self._sums[id_] = Sum(id_, fields, expires_at=expires_at)
        found.amounts.append(_Amount(offset, values))

    @property
    def upserts(self) -> Sequence[Upsert]:
        return list(self._upserts.values())

    @property
    def sums(self) -> Sequence[Sum]:
        return list(self._sums.values())


class Store(Protocol):
    """All raise StoreAway, whatever the store did instead of what it was asked for."""

    async def prepare(self) -> None:
        """Make indexes. Repeatable."""
        ...

    async def ping(self) -> None:
        """Whether it is there."""
        ...

    async def begun(self, home: str, offset: int) -> Begun:
        """What the newest audit entry below `offset` says."""
        ...

    async def lives(self, home: str, jobs: Collection[str]) -> list[tuple[str, JobLife]]:
        """All that is known of these ids."""
        ...

    async def write(self, writes: Writes) -> int:
        """Returns when the store has it; how many documents it refused for what they hold, which no repetition mends."""
        ...

    async def find(
        self, collection: str, where: Document, *, order: Sequence[tuple[str, int]], limit: int, fields: Sequence[str] = ()
    ) -> list[Document]:
        """Documents, without their ids; `order`: (field, 1 or -1). `fields`: only these; all if none are named."""
        ...

    async def erase(self, tenant: str, before: float) -> int:
        """Rows of the tenant's jobs that were last heard of before this instant; how many. Repeatable."""
        ...

    async def homes(self) -> list[str]:
        """All that have an audit chain."""
        ...

    async def close(self) -> None: ...
