"""The behaviour suite of the log port: all cases. Run by tests/contract (in memory) and tests/integration (real Kafka)."""

from __future__ import annotations

from tests.support import log_groups, log_reading, log_sending, log_topics
from tests.support.log_bench import Case

CASES: list[Case] = [*log_sending.CASES, *log_reading.CASES, *log_groups.CASES, *log_topics.CASES]
