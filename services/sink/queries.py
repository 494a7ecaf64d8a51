"""Questions that the sink answers from its store: what each may say, and how its answer is made. Bounded in what they read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import from_json

from services.sink.port import ACTS, AUDIT, LETTERS, NODES, OFFSET_DIGITS, TALKS, TOTALS, USAGE, Document, Store
from shared.audit import BLOCK
from shared.contracts import ids
from shared.contracts.base import EpochSeconds, JobId, Label, NodeId, Offset, Tenant
from shared.contracts.budget import MICROS
from shared.contracts.result import Status
from shared.errors import NotFound, TooLarge

MOST_TOTALS = 100_000
"""Documents that one question about usage may read: of a home, a day and a key each."""
MOST_RECENT = 20_000
MOST_BLOCKS = 40
"""Of the chain, that one page of the log reads."""
OF = {"jobs": ("pattern", "class", "status", "key"), "steps": ("agent", "model"), "talks": ("conversation",)}
"""What sums are of → what they may be grouped by, besides day and tenant."""
_AMOUNTS = (
    "jobs", "steps", "attempts", "answers", "failures", "calls", "prompt_tokens", "completion_tokens", "wasted_calls", "wasted_tokens",
    "cut_off_tokens", "cost_micros", "milliseconds",
)  # fmt: skip
_ROW = ("job", "home", "life", "tenant", "pattern", "class", "model", "key", "conversation", "status", "failure", "accepted_at",
        "finished_at", "steps", "attempts", "calls", "prompt_tokens", "completion_tokens", "wasted_tokens", "cost", "at")  # fmt: skip

Words = Annotated[
    tuple[Label, ...], Field(min_length=1, max_length=8), BeforeValidator(lambda text: text.split(",") if isinstance(text, str) else text)
]
Day = Annotated[
    str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$", max_length=10), AfterValidator(lambda day: date.fromisoformat(day) and day)
]
Limit = Annotated[int, Field(ge=1, le=1_000)]
Cursor = Annotated[
    tuple[EpochSeconds, Annotated[str, Field(max_length=1_000)]], BeforeValidator(lambda text: (*str(text).split(",", 1), "")[:2])
]
"""`at,id` of the last row of a page; an instant alone: what lies before it."""


class Query(BaseModel, ABC):
    """Unknown words are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    path: ClassVar[str]
    for_administrators: ClassVar = False

    tenant: Tenant | None = None
    """Of an administrator: whose; everybody's if he names none."""

    @abstractmethod
    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        """Of this tenant's; None: of everybody's. `now`: epoch seconds. Raises StoreAway, TooLarge, NotFound."""


def _given(**where: Any) -> Document:
    """What documents must have, but for what nobody asked for."""
    return {name: value for name, value in where.items() if value is not None}


class _Usage(Query):
    """Sums of days (UTC, by the arrival of what is counted), grouped by `by`. Of agents and models the sums are of attempts."""

    path = "/v1/usage"
    first: Day | None = Field(default=None, alias="from")
    last: Day | None = Field(default=None, alias="to")
    by: Words = ("day", "tenant")

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if unknown := set(self.by).difference(("day", "tenant"), *OF.values()):
            raise ValueError(f"cannot be grouped by {', '.join(sorted(unknown))}")
        if len(self._of()) > 1:
            raise ValueError("; ".join(f"{', '.join(words)}: of {of}" for of, words in OF.items()) + ": words of one of these only")
        return self

    def _of(self) -> list[str]:
        return [of for of, words in OF.items() if set(self.by) & set(words)]

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        last = self.last or datetime.fromtimestamp(now, UTC).date().isoformat()
        first = self.first or (date.fromisoformat(last) - timedelta(days=min(30, date.fromisoformat(last).toordinal() - 1))).isoformat()
        (of,) = self._of() or ["jobs"]
        where = _given(day={"$gte": first, "$lte": last}, of=of, tenant=tenant)
        found = await store.find(TOTALS, where, order=[("day", 1)], limit=MOST_TOTALS + 1)
        if len(found) > MOST_TOTALS:
            raise TooLarge("that are too many days, or too many tenants: ask for fewer")
        return {"of": of, "from": first, "to": last, "rows": summed(found, self.by)}


def summed(found: Iterable[Document], by: Sequence[str]) -> list[Document]:
    """Rows by the values of `by`, in their order."""
    sums: dict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in found:
        total = sums[tuple(str(row.get(name, "")) for name in by)]
        for name in _AMOUNTS:
            if name in row:
                total[name] += int(row[name])
    return [dict(zip(by, key, strict=True)) | _readable(total) for key, total in sorted(sums.items())]


def _readable(total: dict[str, int]) -> Document:
    shown: Document = {name: total[name] for name in _AMOUNTS if name in total and name not in ("cost_micros", "milliseconds")}
    shown["cost"] = total.get("cost_micros", 0) / MICROS
    if "milliseconds" in total:
        shown["seconds"] = total["milliseconds"] / 1e3
    return shown


class _Paged(Query):
    """What has an instant, newest first. `before`: what the page before calls `next`, since many may have one instant."""

    before: Cursor | None = None
    limit: Limit = 100

    async def page(self, store: Store, collection: str, where: Document, since: float = 0.0, fields: Sequence[str] = ()) -> list[Document]:
        """Behind (at, id) `before`, the newest first."""
        order, found, at = [("at", -1), ("_id", -1)], list[Document](), {"$gte": since}
        if self.before is not None:
            at["$lt"], last = self.before
            same = where | {"at": at["$lt"], "_id": {"$not": {"$gte": last}}}  # SecantusDB's $lt misses "x.3" below "x.32"
            found = await store.find(collection, same, order=order, limit=self.limit, fields=fields)
        if left := self.limit - len(found):
            found += await store.find(collection, where | {"at": at}, order=order, limit=left, fields=fields)
        return found


class _Jobs(_Paged):
    """Rows of jobs, those last heard of first."""

    path = "/v1/usage/jobs"
    status: Status | None = None
    pattern: Label | None = None
    model: Label | None = None
    since: EpochSeconds = 0.0

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        where = _given(tenant=tenant, status=self.status and self.status.value, pattern=self.pattern, model=self.model)
        rows = await self.page(store, USAGE, where, self.since, _ROW)
        last = rows[-1] if len(rows) == self.limit else None
        next_ = None if last is None else f"{last['at']!r},{last['job']}@{last['home']}.{last['life']}"
        return {"rows": [row | {"job": ids.public(row["job"])} for row in rows], "next": next_}


class _OneJob(Query):
    """All lives of one id, with its steps."""

    path = "/v1/usage/jobs/{job:path}"
    job: JobId

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        named = self.job if tenant is None or "/" in self.job else ids.qualified(tenant, self.job)
        where = _given(job=named, tenant=tenant)
        found = await store.find(USAGE, where, order=[("life", 1)], limit=100)
        if not found:
            raise NotFound("there is no such job")
        return {"rows": [row | {"job": ids.public(row["job"]), "nodes": _nodes(row)} for row in found]}


def _nodes(row: Document) -> list[str]:
    found = {step["answered"]["node"] for step in row.get("s", {}).values() if "node" in step.get("answered", {})}
    return sorted(found)


class _Top(Query):
    """Who used most in the last minutes, by one word."""

    path = "/v1/top"
    minutes: Annotated[int, Field(ge=1, le=1_440)] = 5
    by: Literal["tenant", "pattern", "class", "model"] = "tenant"

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        where = _given(at={"$gte": now - 60 * self.minutes}, tenant=tenant)
        found = await store.find(USAGE, where, order=[("at", -1)], limit=MOST_RECENT, fields=_ROW)
        rows: dict[str, Document] = {}
        for row in found:
            top = rows.setdefault(
                str(row.get(self.by, "")), {"live": 0, "ended": 0, "failed": 0, "tokens": 0, "wasted_tokens": 0, "cost": 0.0}
            )
            status = row.get("status")
            top["live" if status is None else "ended"] += 1
            top["failed"] += status not in (None, Status.SUCCEEDED.value)
            top["tokens"] += row.get("prompt_tokens", 0) + row.get("completion_tokens", 0)
            top["wasted_tokens"] += row.get("wasted_tokens", 0)
            top["cost"] += row.get("cost", 0.0)
        ordered = sorted(rows.items(), key=lambda item: (-item[1]["tokens"], -item[1]["live"], item[0]))
        return {"minutes": self.minutes, "whole": len(found) < MOST_RECENT, "rows": [{self.by: key} | row for key, row in ordered]}


class _Talks(_Paged):
    """Conversations, used last first, and what their jobs used. No text of them is here."""

    path = "/v1/conversations"

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        where = _given(tenant=tenant)
        found = await self.page(store, TALKS, where)
        rows = {(row["tenant"], row["conversation"]): _talk(row) for row in reversed(found)}
        names = sorted({name for _, name in rows})
        used = await store.find(TOTALS, where | {"conversation": {"$in": names}}, order=[("conversation", 1)], limit=MOST_TOTALS)
        for total in summed(used, ("tenant", "conversation")):
            if row := rows.get((total["tenant"], total["conversation"])):
                row |= {name: total[name] for name in ("jobs", "prompt_tokens", "completion_tokens", "wasted_tokens", "cost")}
        last = found[-1] if len(found) == self.limit else None
        shown = [row for row in reversed(rows.values()) if not row["gone"]]
        next_ = None if last is None else f"{last['at']!r},{last['home']}/{last['tenant']}/{last['conversation']}"
        return {"rows": shown, "next": next_}


def _talk(row: Document) -> Document:
    state: Document = from_json(row["state"][OFFSET_DIGITS:])
    return {name: row[name] for name in ("tenant", "conversation", "at")} | state


class _Logs(Query):
    """What happened, newest first: an event a line. `before`: what the page before calls `next`, in milliseconds."""

    path = "/v1/logs"
    since: EpochSeconds = 0.0
    before: Annotated[int, Field(ge=0, le=10**16)] = 10**16
    limit: Limit = 100

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        where = {"to_ms": {"$gte": round(1e3 * self.since)}, "from_ms": {"$lt": self.before}}
        for most in (MOST_BLOCKS, 16 * MOST_BLOCKS):
            blocks = await store.find(AUDIT, where, order=[("to_ms", -1)], limit=most)
            whole = round(1e3 * self.since)
            if (read_all := len(blocks) < most) or (whole := max(whole, blocks[-1]["to_ms"] + 1)) < self.before:
                break  # of what is older than `whole` there may be blocks that were not read
        else:
            raise TooLarge("too much has happened in one instant")
        entries = [
            entry | {"home": block["home"]}
            for block in blocks
            for entry in block["entries"].values()
            if whole <= entry["at_ms"] < self.before and (tenant is None or entry.get("tenant") == tenant)
        ]
        entries.sort(key=lambda entry: (-entry["at_ms"], entry["home"], -entry["offset"]))
        if len(entries) > self.limit:  # what has one instant is not parted
            whole = max(whole, entries[self.limit - 1]["at_ms"])
        done = (read_all or whole <= 1e3 * self.since) and len(entries) <= self.limit
        return {"rows": [entry for entry in entries if entry["at_ms"] >= whole], "next": None if done else whole}


class _Audit(Query):
    """Links of one home's chain behind the offset `after`, in order; without a home: which homes there are.

    A tenant's own are no whole chain: only administrators can check it.
    """

    path = "/v1/audit"
    home: Label | None = None
    after: Offset = -1
    limit: Limit = 1_000

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        if self.home is None:
            return {"homes": await store.homes()}
        where: Document = {"home": self.home, "block": {"$gte": max(0, self.after + 1) // BLOCK}}
        blocks = await store.find(AUDIT, where, order=[("block", 1)], limit=self.limit // BLOCK + 2)
        entries = sorted(
            (entry for block in blocks for entry in block["entries"].values() if entry["offset"] > self.after),
            key=lambda entry: int(entry["offset"]),
        )
        page = entries[: self.limit]
        shown = [entry for entry in page if tenant is None or entry.get("tenant") == tenant]
        return {"home": self.home, "rows": shown, "next": page[-1]["offset"] if page else None}


class _Nodes(Query):
    """What nodes said of themselves, newest first."""

    path = "/v1/nodes/history"
    for_administrators: ClassVar = True

    node: NodeId | None = None
    limit: Limit = 100

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        return {"rows": await store.find(NODES, _given(node=self.node), order=[("to_ms", -1)], limit=self.limit)}


class _Letters(Query):
    """Dead letters, newest first; without what they carry."""

    path = "/v1/dead-letters"
    for_administrators: ClassVar = True

    limit: Limit = 100

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        return {"rows": await store.find(LETTERS, {}, order=[("at", -1)], limit=self.limit)}


class _Acts(Query):
    """What administrators did, newest first, by the brokers' clock. `before`: `at` of the last row of the page before."""

    path = "/v1/acts"
    for_administrators: ClassVar = True

    by: Label | None = None
    kind: Annotated[str, Field(max_length=64)] | None = None
    since: EpochSeconds = 0.0
    before: EpochSeconds | None = None
    limit: Limit = 100

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        at: Document = {"$gte": self.since} | ({} if self.before is None else {"$lt": self.before})
        return {
            "rows": await store.find(ACTS, _given(at=at, by=self.by, kind=self.kind, tenant=tenant), order=[("at", -1)], limit=self.limit)
        }


QUERIES: tuple[type[Query], ...] = (_Usage, _Jobs, _OneJob, _Top, _Logs, _Talks, _Audit, _Nodes, _Letters, _Acts)
"""All of them."""
