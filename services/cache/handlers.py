"""Records of the cache's topics as messages, and its answers as records. What is none is an InvalidRecord, for the dead letters."""

from __future__ import annotations

from typing import NamedTuple

from shared.contracts import headers
from shared.contracts.cache import FILL, CacheAbandoned, CacheFill, CacheLookup
from shared.contracts.chat import Answer
from shared.contracts.outcome import CacheMissed, StepSucceeded
from shared.errors import InvalidRecord
from shared.kafka.port import Message, Record
from shared.processing.tries import message
from shared.processing.window import Window
from shared.topics import Topics

_SERVED = headers.envelope("succeeded")
_MISSED = headers.envelope("cache_missed")


class CacheRecord(NamedTuple):
    """What one record says, and where it lies."""

    window: Window
    offset: int
    said: CacheLookup | CacheFill | CacheAbandoned

    def finish(self) -> None:
        """Its record may be committed past."""
        self.window.finish(self.offset)


def read_asked(window: Window, record: Record, topics: Topics) -> CacheRecord:
    """Raises InvalidRecord."""
    if record.topic == topics.fills:
        return CacheRecord(window, record.offset, message(record, FILL.validate_json, "fill"))
    lookup = message(record, CacheLookup.model_validate_json, "lookup")
    if lookup.home >= topics.settings.home_partitions:
        raise InvalidRecord("the lookup's home is not a partition of this cluster")
    return CacheRecord(window, record.offset, lookup)


def served(lookup: CacheLookup, answer: Answer, topics: Topics) -> Message:
    """The step has this answer."""
    outcome = StepSucceeded.of_valid(job=lookup.job, step=lookup.step, attempt=lookup.attempt, answer=answer)
    return _told(lookup, outcome, _SERVED, topics)


def missed(lookup: CacheLookup, follow_seconds: float | None, topics: Topics) -> Message:
    """It has none; or it may wait so long for another step's."""
    outcome = CacheMissed.of_valid(job=lookup.job, step=lookup.step, attempt=lookup.attempt, follow_seconds=follow_seconds)
    return _told(lookup, outcome, _MISSED, topics)


def _told(lookup: CacheLookup, outcome: StepSucceeded | CacheMissed, head: headers.Headers, topics: Topics) -> Message:
    return Message(topics.outcomes, outcome.to_bytes(), lookup.job.encode(), lookup.home, tuple(head), lookup.tenant)
