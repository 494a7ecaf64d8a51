"""Acts of administrators as documents, and the question about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from services.sink.port import ACTS, Batch
from shared.contracts import headers
from shared.contracts.act import Act
from shared.contracts.base import VERSION
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
