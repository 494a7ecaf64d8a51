"""Records of `results` as typed results, and what is counted of them."""

from __future__ import annotations

from prometheus_client import Counter
from pydantic import ValidationError

from shared.contracts.bounds import explain
from shared.contracts.result import Result
from shared.errors import InvalidRecord
from shared.kafka.port import Record
from shared.processing.window import Window

JOBS_COUNTED = Counter("counter_jobs", "Jobs that have ended, by tenant.", ["tenant"])


def read_result(window: Window, record: Record) -> tuple[Window, int, Result]:
    """With where it lies. Raises InvalidRecord; the reason quotes no values."""
    try:
        return window, record.offset, Result.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord(explain(error, "result")) from None


def count(result: Result) -> None:
    """One more."""
    JOBS_COUNTED.labels(result.tenant).inc()
