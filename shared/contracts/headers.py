"""Record headers: `type`, `version`, `traceparent`, and where a caller waits (ours, and Spring's `kafka_*` spellings)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from shared.contracts.base import DIGEST, MAX_CORRELATION_BYTES, MOST_EXPLANATION, TENANT, TOPIC, VERSION
from shared.contracts.ids import Maker
from shared.contracts.job import ReplyTo
from shared.errors import InvalidRecord, NewerVersion

Headers = Sequence[tuple[str, bytes]]

TYPE = "type"
VERSION_HEADER = "version"
TRACEPARENT = "traceparent"
CORRELATION_ID = "correlation-id"
REPLY_TOPIC = "reply-topic"
REPLY_PARTITION = "reply-partition"
REPLY_MULTIPLEX = "reply-multiplex"
REPLY_READS_EVENTS = "reply-reads-events"
"""`1`: who waits there learns the end from the job's settle event, and needs a final only where none is appended."""
CALLBACK = "callback"
"""`1` on a record of `results` whose job has one: no other need be parsed for it."""
NODE = "node"
"""On `work.*`: the node that the step was given to; whoever else reads the mailbox releases it."""
WHY = "why"
"""Of a step in a mailbox: why it lies there (`shared/placement/why.py`)."""
CREDITS = "credits"
"""On `work.*`: a planner wrote the step itself, on a place of this record of its node's credits: `boot/sequence`."""
REQUEST_DIGEST = "request-digest"
"""On `jobs.*`: digest of what the caller asked for, where an ingress added to it (a deadline, a model's full name)."""
WAS_DELAYED = "was-delayed"
"""On what the delay service sent on: its clock has found the record due, and no other clock is asked again."""
WAITED = "waited"
"""On `steps.*`, `work.*`, `callbacks`: seconds that it has waited (in delay, in a router) since what it says was written. Every reader
counts by its own watch from there."""
KEY_NAME = "key-name"
"""On `jobs.*`: what the keys file calls the API key that the job came with. Who may write to `jobs.*` may forge it: then his usage is told
under it."""
REPLAY_OF = "replay-of"
"""On a record that was sent again from the dead letters: `topic/partition/offset/timestamp` of the original."""
MADE_BY = "made-by"
"""On `jobs.*`: who of tutti made the record's id (`ids.Maker`). Who may write to `jobs.*` may forge it: then he has an id like ours."""
HELD_JOB = "held-job"
"""Type of a record on `jobs.*` that tutti wrote: a HeldJob, whose input lies in a blob. Who may write to `jobs.*` may forge it, and can
name nothing but what the tenant that he names has kept."""
FORWARDED_FROM = "forwarded-from"
"""On `jobs.*`: where a record lay whose id is at home here, spelled as in `replay-of`."""
SEALED = "sealed"
"""The first header of a record whose value is sealed: the id of the key (`shared.sealing`). Nobody who reads through a log sees it."""
SPRING_CORRELATION_ID = "kafka_correlationId"
SPRING_REPLY_TOPIC = "kafka_replyTopic"
SPRING_REPLY_PARTITION = "kafka_replyPartition"

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_DIGEST = re.compile(DIGEST)
_TOPIC = re.compile(TOPIC)
_KEY_NAME = re.compile(TENANT)
_ORIGIN = re.compile(rf"({TOPIC})/([0-9]{{1,9}})/([0-9]{{1,18}})/(-?[0-9]{{1,18}})")
_READ = frozenset({
    TYPE, VERSION_HEADER, TRACEPARENT, CORRELATION_ID, REPLY_TOPIC, REPLY_PARTITION, REPLY_MULTIPLEX, REPLY_READS_EVENTS, REQUEST_DIGEST,
    REPLAY_OF, KEY_NAME, SPRING_CORRELATION_ID, SPRING_REPLY_TOPIC, SPRING_REPLY_PARTITION, MADE_BY, FORWARDED_FROM,
})  # fmt: skip
"""What is read of a `jobs.*` record's headers."""
_SECONDS = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,6})?")
_LONGEST_SECONDS = 999_999_999.0
_VERSION = str(VERSION).encode()


def envelope(kind: str, trace: str | None = None, *, version: int = VERSION) -> tuple[tuple[str, bytes], ...]:
    """The headers every record of ours carries."""
    base = _envelope(kind, version)
    return (*base, (TRACEPARENT, trace.encode())) if trace else base


@lru_cache(maxsize=64)
def _envelope(kind: str, version: int) -> tuple[tuple[str, bytes], ...]:
    """Kinds are few; every record carries one."""
    return ((TYPE, kind.encode()), (VERSION_HEADER, b"%d" % version))


def find(headers: Headers, name: str) -> bytes | None:
    """The first value under `name`, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def read_ones(headers: Headers) -> tuple[tuple[str, bytes], ...]:
    """Those of a `jobs.*` record that tutti reads; a caller's other headers, which may be large, mean nothing here. Kafka allows null
    values: such a header says nothing.
    """
    return tuple((name, value) for name, value in headers if name in _READ and value is not None)


def waiting(seconds: float) -> tuple[str, bytes]:
    """The header `waited`."""
    return WAITED, b"%.3f" % max(0.0, min(seconds, _LONGEST_SECONDS))


class Origin(NamedTuple):
    """Where the original of a replayed record lay. `timestamp` is 0 when its dead letter does not tell it."""

    topic: str
    partition: int
    offset: int
    timestamp: int

    def header(self, name: str = REPLAY_OF) -> tuple[str, bytes]:
        """Marks a record as this one, sent again; or, under `FORWARDED_FROM`, as this one at its home."""
        return name, f"{self.topic}/{self.partition}/{self.offset}/{self.timestamp}".encode()


class Envelope:
    """What a record's headers say, read once. Of several under one name the first counts."""

    __slots__ = ("_first",)

    def __init__(self, headers: Headers) -> None:
        self._first = dict(reversed(headers))

    def get(self, name: str) -> bytes | None:
        """The value under `name`, or None."""
        return self._first.get(name)

    def text(self, name: str) -> str | None:
        """The first value under `name` as UTF-8 text. Raises InvalidRecord when it is not text."""
        value = self.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InvalidRecord(f"header {name} is not UTF-8 text") from error

    def version(self) -> int:
        """The message's version; 1 when there is no header. Raises InvalidRecord when it is not a number."""
        found = self.get(VERSION_HEADER)
        if found is None or found == _VERSION:
            return 1 if found is None else VERSION
        value = self.text(VERSION_HEADER) or ""
        if not value.isascii() or not value.isdigit() or len(value) > 6:
            raise InvalidRecord("header version is not a number")
        return int(value)

    def refuse_newer(self, newest: int = VERSION) -> None:
        """Raises NewerVersion for a record of a version that this code does not know, InvalidRecord for one without a sensible version."""
        found = self.version()
        if found > newest:
            raise NewerVersion(f"a record is of version {found}; the newest known here is {newest}")

    def why(self) -> str | None:
        """Why a step lies in its mailbox, or None. It is for people: of what is no explanation nothing is said."""
        try:
            said = (self.get(WHY) or b"").decode()
        except UnicodeDecodeError:
            return None
        return said if 0 < len(said) <= MOST_EXPLANATION else None

    def traceparent(self) -> str | None:
        """A well-formed W3C traceparent, or None. A malformed one is ignored, as the specification demands."""
        value = self.get(TRACEPARENT)
        if value is None:
            return None
        decoded = value.decode("ascii", "replace")
        return decoded if _TRACEPARENT.fullmatch(decoded) else None

    def key_name(self) -> str | None:
        """Of the API key that the job came with; None without a sensible one."""
        name = (self.get(KEY_NAME) or b"").decode("ascii", "replace")
        return name if _KEY_NAME.fullmatch(name) else None

    def waited(self) -> float:
        """Seconds of the header `waited`; 0 without a sensible one."""
        value = self.get(WAITED)
        if value is None or not _SECONDS.fullmatch(value):
            return 0.0
        return float(value)

    def request_digest(self) -> str | None:
        """What tells a repeated request under one id from another one, when the record's bytes cannot. Raises InvalidRecord."""
        value = self.text(REQUEST_DIGEST)
        if value is not None and not _DIGEST.fullmatch(value):
            raise InvalidRecord("header request-digest is not 32 hex digits")
        return value

    def replay_of(self) -> Origin | None:
        """The original of a record that was sent again from the dead letters; None of any other record."""
        return self._origin(REPLAY_OF)

    def forwarded_from(self) -> Origin | None:
        """Where a record lay that was forwarded to the home of its id; None of any other record."""
        return self._origin(FORWARDED_FROM)

    def made_by(self) -> Maker | None:
        """Who of tutti made the record's id; None: it is the caller's own. Raises InvalidRecord for a maker that is not known."""
        value = self.get(MADE_BY)
        if value is None:
            return None
        try:
            return Maker(value.decode("ascii", "replace"))
        except ValueError as error:
            raise InvalidRecord("header made-by names nobody who makes ids") from error

    def _origin(self, name: str) -> Origin | None:
        value = self.get(name)
        found = None if value is None else _ORIGIN.fullmatch(value.decode("utf-8", "replace"))
        if found is None:
            return None
        return Origin(found[1], int(found[2]), int(found[3]), int(found[4]))

    def reply_address(self) -> ReplyTo | None:
        """Where the caller waits; ours win over Spring's. None when no reply is asked for. Raises InvalidRecord on a malformed header."""
        topic = self.text(REPLY_TOPIC)
        if topic is not None:
            return ReplyTo(
                topic=_topic(topic),
                partition=_decimal(self.text(REPLY_PARTITION)),
                correlation=_correlation(self.get(CORRELATION_ID)),
                multiplex=self.get(REPLY_MULTIPLEX) == b"1",
                reads_events=self.get(REPLY_READS_EVENTS) == b"1",
            )
        topic = self.text(SPRING_REPLY_TOPIC)
        if topic is None:
            return None
        return ReplyTo(
            topic=_topic(topic),
            partition=_big_endian(self.get(SPRING_REPLY_PARTITION)),
            correlation=_correlation(self.get(SPRING_CORRELATION_ID)),
            dialect="spring",
        )


def reply_headers(reply: ReplyTo) -> tuple[tuple[str, bytes], ...]:
    """The headers that make a job record ask for a reply in our spelling."""
    headers = [(CORRELATION_ID, reply.correlation), (REPLY_TOPIC, reply.topic.encode())]
    if reply.partition is not None:
        headers.append((REPLY_PARTITION, str(reply.partition).encode()))
    if reply.multiplex:
        headers.append((REPLY_MULTIPLEX, b"1"))
    if reply.reads_events:
        headers.append((REPLY_READS_EVENTS, b"1"))
    return tuple(headers)


def correlation_headers(reply: ReplyTo) -> tuple[tuple[str, bytes], ...]:
    """The correlation as the caller's dialect expects it on the reply, bytes unchanged."""
    name = SPRING_CORRELATION_ID if reply.dialect == "spring" else CORRELATION_ID
    return ((name, reply.correlation),)


def _topic(name: str) -> str:
    if not _TOPIC.fullmatch(name):
        raise InvalidRecord("the reply topic is not a topic name")
    return name


def _decimal(value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise InvalidRecord("header reply-partition is not a partition number")
    return int(value)


def _big_endian(value: bytes | None) -> int | None:
    if value is None:
        return None
    if len(value) != 4:
        raise InvalidRecord("header kafka_replyPartition is not a 4-byte integer")
    number = int.from_bytes(value, "big", signed=True)
    if number < 0:
        raise InvalidRecord("header kafka_replyPartition is negative")
    return number


def _correlation(value: bytes | None) -> bytes:
    if value is None:
        return b""
    if len(value) > MAX_CORRELATION_BYTES:
        raise InvalidRecord("the correlation id is too long")
    return value
