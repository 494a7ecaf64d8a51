"""MemoryStore: the sink's store in memory, with the promises of `services/sink/port.py` and no more; and what can go wrong with it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from random import Random
from typing import Any

from services.sink.port import AUDIT, OF_TENANTS, TOTALS, USAGE, Begun, Document, JobLife, Writes
from shared.audit import BLOCK, GENESIS
from shared.errors import StoreAway


class MemoryStore:
    """Documents by collection and id. Each call takes a moment. `fails`: how likely it is that a call fails; a write may be done in part
    then, or in full. `away`: nothing is answered.
    """

    def __init__(self, random: Random | None = None, fails: float = 0.0) -> None:
        self._random, self.fails, self.away = random or Random(1), fails, False
        self.documents: dict[str, dict[str, Document]] = defaultdict(dict)
        self.writes = 0
        self.upserts = 0

    async def prepare(self) -> None:
        await self._moment()

    async def ping(self) -> None:
        await self._moment()

    async def begun(self, home: str, offset: int) -> Begun:
        await self._moment()
        blocks = [row for row in self.documents[AUDIT].values() if row["home"] == home and row["block"] <= offset // BLOCK]
        entries = [entry for row in blocks for entry in row["entries"].values() if entry["offset"] < offset]
        if not entries:
            return Begun(None, GENESIS)
        last = max(entries, key=lambda entry: entry["offset"])
        return Begun(last["epoch"], last["chain"])

    async def lives(self, home: str, jobs: Collection[str]) -> list[tuple[str, JobLife]]:
        await self._moment()
        rows = [row for row in self.documents[USAGE].values() if row["home"] == home and row["job"] in jobs]
        return [
            (row["job"], JobLife(
                row["life"], row.get("tenant"), row.get("settled"),
                {step: (told["agent"], told["model"]) for step, told in row.get("s", {}).items() if "agent" in told},
                row.get("conversation"),
            ))
            for row in rows
        ]  # fmt: skip

    async def write(self, writes: Writes) -> int:
        await self._moment(write=False)
        self.writes += 1
        steps = [*(("upsert", one) for one in writes.upserts), *(("sum", one) for one in writes.sums)]
        done = len(steps) if self._random.random() >= self.fails else self._random.randint(0, len(steps))
        for kind, one in steps[:done]:
            if self._random.random() < 0.1:
                await asyncio.sleep(0.001)  # another sink may come in between
            (self._upsert if kind == "upsert" else self._sum)(one)
        if done < len(steps) or self._random.random() < self.fails:
            raise StoreAway("the connection broke")
        return 0

    async def find(
        self, collection: str, where: Document, *, order: Sequence[tuple[str, int]], limit: int, fields: Sequence[str] = ()
    ) -> list[Document]:
        await self._moment()
        found = [row | {"_id": id_} for id_, row in self.documents[collection].items()]
        rows = [row for row in found if all(_fits(row.get(name), asked) for name, asked in where.items())]
        for name, way in reversed(order):
            rows.sort(key=lambda row: row[name], reverse=way < 0)
        shown = [{name: value for name, value in row.items() if name != "_id" and (not fields or name in fields)} for row in rows]
        return shown[: limit or None]

    async def erase(self, tenant: str, before: float) -> int:
        await self._moment()
        rows = [(self.documents[kind], name) for kind in OF_TENANTS for name in self.documents[kind]]
        gone = [(found, name) for found, name in rows if found[name].get("tenant") == tenant and found[name]["at"] < before]
        for found, name in gone:
            del found[name]
        return len(gone)

    async def homes(self) -> list[str]:
        await self._moment()
        return sorted({row["home"] for row in self.documents[AUDIT].values()})

    async def close(self) -> None:
        return None

    async def _moment(self, *, write: bool = True) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 0.01))
        if self.away or (write and self._random.random() < self.fails):
            raise StoreAway("the store does not answer")

    def _upsert(self, one: Any) -> None:
        self.upserts += 1
        row = self.documents[one.collection].setdefault(one.id, {})
        for path, value in one.fields.items():
            _put(row, path, value)
        for path, value in one.least.items():
            row[path] = min(value, row.get(path, value))
        for path, value in one.most.items():
            row[path] = max(value, row.get(path, value))

    def _sum(self, one: Any) -> None:
        row = self.documents[TOTALS].setdefault(one.id, {"reached": -1})
        for amount in one.amounts:
            if amount.offset > row["reached"]:
                for name, value in amount.values.items():
                    row[name] = row.get(name, 0) + value
        row |= one.fields | {"reached": max(row["reached"], one.amounts[-1].offset)}


def _put(row: Document, path: str, value: Any) -> None:
    *under, last = path.split(".")
    for name in under:
        row = row.setdefault(name, {})
    row[last] = value


def _fits(value: Any, asked: Any) -> bool:
    if not isinstance(asked, dict):
        return bool(value == asked)
    if "$not" in asked:
        return not _fits(value, asked["$not"])
    tests = {"$gte": lambda a, b: a >= b, "$lte": lambda a, b: a <= b, "$lt": lambda a, b: a < b, "$in": lambda a, b: a in b}
    return value is not None and all(tests[name](value, bound) for name, bound in asked.items())
