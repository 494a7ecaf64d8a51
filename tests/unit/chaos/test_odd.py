"""Odd records: every partition of every topic gets each kind, and none of them is anybody's job."""

from __future__ import annotations

from collections import Counter

from infra.lab.chaos import odd
from infra.verify.checker import Scope
from infra.verify.laws import LawKind
from infra.verify.report import RecordPlace, Report
from shared.contracts.base import INLINE_BYTES
from shared.contracts.bounds import parse_job
from shared.errors import TuttiError
from shared.topics import Topics


def is_a_job(value: bytes | None) -> bool:
    try:
        parse_job(value)
    except TuttiError:
        return False
    return len(value or b"") <= INLINE_BYTES


def test_every_partition_of_every_topic_gets_the_same() -> None:
    topics = Topics()
    found = Counter((message.topic, message.partition) for message in odd.messages(topics))
    assert set(found) == {(topic.name, n) for topic in topics.all() for n in range(topic.partitions)}
    compacted = {topic.name for topic in topics.all() if "compact" in topic.family.cleanup}
    assert all(message.key is not None for message in odd.messages(topics) if message.topic in compacted), "Kafka refuses others there"


def test_none_of_them_is_a_job() -> None:
    """Or the checker would miss its result."""
    assert not any(is_a_job(message.value) for message in odd.messages(Topics()))


def test_only_what_cannot_be_read_is_forgiven_there() -> None:
    place = RecordPlace("job-events", 0, 7)
    report = Report(foreign=Scope(Topics(), foreign={place}).foreign)
    report.add(LawKind.UNREADABLE, place, "")
    report.add(LawKind.LOST, place, "j")
    report.add(LawKind.UNREADABLE, RecordPlace("job-events", 0, 8), "")
    assert {kind: finding.count for kind, finding in report.findings.items()} == {LawKind.LOST: 1, LawKind.UNREADABLE: 1}
