"""Dead letters say where a record lay and why it was refused, keep a bounded part of it, and leak nothing."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from pydantic import BaseModel, ValidationError

from shared.clock import ManualClock
from shared.contracts.base import RECORD_BYTES
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.headers import find
from shared.errors import InvalidRecord
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import Message
from shared.kafka.sizes import check_record
from shared.processing.dead_letters import HEADERS_BYTES, VALUE_BYTES, dead_letter
from shared.topics import Topics

TOPICS = Topics()
CLOCK = ManualClock(1_700_000_000.0)
TRACE = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


def record(value: bytes | None, *, key: bytes | None = b"k", headers: tuple[tuple[str, bytes], ...] = ()) -> MemoryRecord:
    return MemoryRecord("jobs.batch", 3, 42, 1, key, value, headers, 0.0)


def written(message: Message) -> DeadLetter:
    assert message.value is not None
    return DeadLetter.model_validate_json(message.value)


def test_a_dead_letter_tells_where_why_and_what() -> None:
    """Topic, partition, offset, service, reason, code, the original bytes; same key, same trace."""
    refused = record(b"\xff\x00{", headers=(("type", b"Job"), ("traceparent", TRACE)))
    message = dead_letter(refused, "planner", InvalidRecord("not JSON"), CLOCK, TOPICS)
    letter = written(message)
    assert (letter.topic, letter.partition, letter.offset, letter.service) == ("jobs.batch", 3, 42, "planner")
    assert (letter.reason, letter.code, letter.at) == ("not JSON", "invalid_record", 1_700_000_000.0)
    assert (letter.key, letter.value, letter.headers, letter.truncated) == (b"k", b"\xff\x00{", refused.headers, False)
    assert (message.topic, message.key) == (TOPICS.dead_letters, b"k")
    assert find(message.headers, "traceparent") == TRACE


@pytest.mark.parametrize(
    "refused",
    [
        record(b"x" * (RECORD_BYTES - 100)),
        record(b"small", headers=tuple((f"h{n}", b"y" * 1_000) for n in range(250))),
        record(b"small", key=b"k" * 100_000),
    ],
    ids=["value", "headers", "key"],
)
def test_whatever_was_refused_its_dead_letter_fits_a_record(refused: MemoryRecord) -> None:
    """Large values, keys and headers are cut, and the letter says so."""
    message = dead_letter(refused, "planner", InvalidRecord(), CLOCK, TOPICS)
    check_record(message)
    letter = written(message)
    assert letter.truncated
    assert len(letter.value or b"") <= VALUE_BYTES
    assert sum(len(name) + len(value) for name, value in letter.headers) <= HEADERS_BYTES


def test_absent_key_and_value_stay_absent() -> None:
    """A tombstone without key is a dead letter like any other."""
    letter = written(dead_letter(record(None, key=None), "planner", InvalidRecord(), CLOCK, TOPICS))
    assert (letter.key, letter.value, letter.truncated) == (None, None, False)


def test_reasons_never_quote_the_payload() -> None:
    """A validation error tells places and rules, a foreign error only its kind: either text could carry a prompt."""

    class Model(BaseModel):
        count: int

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"count": "my secret prompt"})
    letter = written(dead_letter(record(b"v"), "planner", caught.value, CLOCK, TOPICS))
    assert (letter.reason, letter.code) == ("count: int_parsing", "invalid_record")
    letter = written(dead_letter(record(b"v"), "planner", ValueError("my secret prompt"), CLOCK, TOPICS))
    assert (letter.reason, letter.code) == ("ValueError", "internal")


def test_a_dead_letter_is_counted() -> None:
    """By service and code."""
    labels = {"service": "test-letters", "code": "invalid_record"}
    assert REGISTRY.get_sample_value("tutti_dead_letters_total", labels) is None
    dead_letter(record(b"v"), "test-letters", InvalidRecord(), CLOCK, TOPICS)
    assert REGISTRY.get_sample_value("tutti_dead_letters_total", labels) == 1.0
