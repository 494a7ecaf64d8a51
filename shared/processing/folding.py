"""Folding of topics that many processes follow for themselves (`nodes`, `credits`, `registry`, `replies`, `job-events`).

Nobody owns such a record, so none of its readers writes a dead letter: each passes it over, counts it and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shared.errors import InvalidRecord
from shared.kafka.port import Record, Unreadable
from shared.processing.dead_letters import code_of, reason_of
from shared.telemetry import logs
from shared.telemetry.metrics import RECORDS_PASSED_OVER

log = logs.get(__name__)


def fold_each(service: str, records: Iterable[Record], fold: Callable[[Record], object]) -> None:
    """Fold one by one; whatever `fold` raises concerns that record alone."""
    for record in records:
        try:
            if isinstance(record, Unreadable):
                raise InvalidRecord(record.reason)
            fold(record)
        except Exception as error:
            pass_over(service, record, error)


def pass_over(service: str, record: Record, error: Exception) -> None:
    """Count it and say so."""
    code = code_of(error)
    RECORDS_PASSED_OVER.labels(service, code).inc()
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    log.warning("record_passed_over", **place, code=code, reason=reason_of(error))
