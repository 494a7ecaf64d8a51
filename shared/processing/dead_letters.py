"""Records that could not be processed, kept with the reason (ARCHITECTURE, law 8). Bounded: a large value is cut and says so.

DeadLetterCap: when so much of a partition cannot be processed that the fault is more likely ours than the records'. Pure.

A bad deploy, or a message of a version that nobody here knows, must not drain a topic into `dead-letters`: the partition is stopped,
what is unread stays in Kafka, and the service says that it is not ready and why. A restart tries again; `TUTTI_DEAD_LETTER_CAP__SHARE=1`
goes on whatever comes.
"""

from __future__ import annotations

from collections import deque

from pydantic import ValidationError

from shared.clock import Clock
from shared.contracts.base import INLINE_BYTES
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.headers import TRACEPARENT, envelope, find
from shared.errors import TuttiError
from shared.kafka.port import Headers, Message, Record, TopicPartition, Unreadable, tenant_of
from shared.settings import DeadLetterCapSettings
from shared.telemetry import logs
from shared.telemetry.metrics import DEAD_LETTERS
from shared.topics import Topics


class DeadLetterCap:
    """Counts one partition's records. Bounded: it remembers at most `window` of them."""

    __slots__ = ("_dead", "_partition", "_read", "_settings", "reason")

    def __init__(self, partition: TopicPartition, settings: DeadLetterCapSettings) -> None:
        self._partition = partition
        self._settings = settings
        self._read = 0
        self._dead: deque[int] = deque()
        self.reason: str | None = None
        """Why nothing more may be taken of this partition; None: go on."""

    def read(self) -> None:
        """A record was taken; most are fine."""
        self._read += 1

    def died(self, record: Record) -> str | None:
        """A record that was taken lately goes to the dead letters. Returns `reason`. What an erased tenant left says nothing of anybody."""
        if isinstance(record, Unreadable) and record.shredded:
            return self.reason
        dead, limit = self._dead, self._settings
        dead.append(self._read)
        while dead[0] <= self._read - limit.window:
            dead.popleft()
        looked_at = min(self._read, limit.window)
        if self.reason is None and len(dead) >= limit.at_least and len(dead) > limit.share * looked_at:
            self.reason = (
                f"{len(dead)} of the last {looked_at} records of {self._partition.topic}/{self._partition.partition} were dead-lettered: "
                "stopped; a restart, or a larger TUTTI_DEAD_LETTER_CAP__SHARE, goes on"
            )
        return self.reason


log = logs.get(__name__)

VALUE_BYTES = INLINE_BYTES
"""What is kept of a value; in base64 this is a third more, far below the record bound."""
KEY_BYTES = 4 * 1024
HEADERS_BYTES = 16 * 1024
REASON_CHARACTERS = 1_000


def dead_letter(record: Record, service: str, error: Exception, clock: Clock, topics: Topics) -> Message:
    """The record to be written to `dead-letters`, under the original key; counted and logged. The reason is the error's own sentence, never
    the payload.
    """
    code = code_of(error)
    DEAD_LETTERS.labels(service, code).inc()
    log.warning("dead_letter", topic=record.topic, partition=record.partition, offset=record.offset, code=code)
    headers, headers_cut = _bounded_headers(record.headers)
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        service=service,
        reason=reason_of(error),
        code=code,
        key=record.key[:KEY_BYTES] if record.key is not None else None,
        value=record.value[:VALUE_BYTES] if record.value is not None else None,
        headers=headers,
        truncated=headers_cut or len(record.value or b"") > VALUE_BYTES or len(record.key or b"") > KEY_BYTES,
        at=clock.wall(),
    )
    trace = find(record.headers, TRACEPARENT)
    trace_text = trace.decode("ascii", "replace") if trace is not None and len(trace) == 55 else None
    return Message(
        topics.dead_letters, letter.to_bytes(), key=letter.key, headers=envelope("DeadLetter", trace_text), tenant=tenant_of(record)
    )


def code_of(error: Exception) -> str:
    """A metric label: the code of our own errors; `invalid_record` for failed validation, `internal` for all others."""
    if isinstance(error, TuttiError):
        return error.code
    return "invalid_record" if isinstance(error, ValidationError) else "internal"


def reason_of(error: Exception) -> str:
    """Our own errors speak in sentences; a validation error tells places and rules; of any other only the kind is kept, since its text
    may quote the payload.
    """
    if isinstance(error, TuttiError):
        text = error.message
    elif isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)
        text = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'record'}: {e['type']}" for e in found)
    else:
        text = type(error).__name__
    return text[:REASON_CHARACTERS]


def _bounded_headers(headers: Headers) -> tuple[tuple[tuple[str, bytes], ...], bool]:
    """The leading headers within the bound, and whether any was left out. Kafka allows null values: kept as empty."""
    kept: list[tuple[str, bytes]] = []
    room = HEADERS_BYTES
    for name, value in headers:
        room -= len(name.encode()) + len(value or b"")
        if room < 0:
            return tuple(kept), True
        kept.append((name, value or b""))
    return tuple(kept), False
