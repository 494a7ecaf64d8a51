"""Acts of administrators as documents, and the question about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError

from services.sink.port import ACTS, Batch, Document, Store
from services.sink.queries import At, Limit, Query
from shared.contracts import headers
from shared.contracts.act import Act
from shared.contracts.base import VERSION, Label
from shared.contracts.bounds import explain
from shared.errors import InvalidRecord
from shared.kafka.port import Record

_DAY_MS = 86_400_000


def read_act(record: Record) -> Act:
    """Raises InvalidRecord."""
    if headers.Envelope(record.headers).version() > VERSION:
        raise InvalidRecord("the act's version is newer than this service")
    try:
        return Act.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord(explain(error, "act")) from None


def keep_act(record: Record, batch: Batch, days: int) -> None:
    """By where its record lies, so that reading it again changes nothing; a topic made anew has other times. Raises InvalidRecord."""
    act = read_act(record)
    upsert = batch.upsert(ACTS, f"{record.offset}/{record.timestamp}")
    upsert.fields.update(act.model_dump(mode="json", exclude_none=True), at=max(0, record.timestamp) / 1000, said_at=act.at)
    until = datetime.fromtimestamp(max(0, record.timestamp) // _DAY_MS * 86_400, UTC) + timedelta(days=days)
    upsert.most["expires_at"] = until


class ActsQuery(Query):
    """What administrators did, newest first, by the brokers' clock. `before`: `at` of the last row of the page before."""

    for_administrators: ClassVar = True

    by: Label | None = None
    kind: Annotated[str, Field(max_length=64)] | None = None
    since: At = 0.0
    before: At | None = None
    limit: Limit = 100

    async def answer(self, store: Store, tenant: str | None, now: float) -> Document:
        at: Document = {"$gte": self.since} | ({} if self.before is None else {"$lt": self.before})
        named = {"by": self.by, "kind": self.kind, "tenant": tenant}
        where = {"at": at, **{name: value for name, value in named.items() if value is not None}}
        return {"rows": await store.find(ACTS, where, order=[("at", -1)], limit=self.limit)}
