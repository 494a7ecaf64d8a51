"""The contract of the log port, case by case: held to the in-memory log here, and to real Kafka by tests/integration."""

from __future__ import annotations

from tests.contract.log import groups, reading, sending, topics
from tests.support.log_bench import Case

CASES: list[Case] = [*sending.CASES, *reading.CASES, *groups.CASES, *topics.CASES]
