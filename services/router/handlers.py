"""Records of `steps.*` and `credits` as messages. A record that is none is an InvalidRecord, for the dead letters."""

from __future__ import annotations

from pydantic import ValidationError

from shared.contracts import headers
from shared.contracts.base import VERSION
from shared.contracts.bounds import explain
from shared.contracts.credits import CREDITS, Credits, RouterPresence
from shared.contracts.step import Step
from shared.errors import InvalidRecord
from shared.kafka.port import Record
from shared.topics import TopicSettings


def read_step(record: Record, settings: TopicSettings) -> Step:
    """The step of a `steps.*` record. Raises InvalidRecord; the reason quotes no values, because they hold prompts."""
    step = _parse(record)
    if step.capability not in settings.capabilities:
        raise InvalidRecord("the step's capability is not one of this cluster's")
    if step.home >= settings.home_partitions:
        raise InvalidRecord("the step's home is not a partition of this cluster")
    return step


def _parse(record: Record) -> Step:
    if record.value is None:
        raise InvalidRecord("the record has no value")
    if record.headers and headers.version(record.headers) > VERSION:
        raise InvalidRecord("the message's version is newer than this router")
    try:
        return Step.model_validate_json(record.value)
    except ValidationError as error:
        raise InvalidRecord(explain(error, "step")) from None


def read_credits(record: Record, mailboxes: int) -> Credits | RouterPresence:
    """Raises InvalidRecord, also for places in a mailbox that does not exist: no step could be sent there."""
    try:
        message: Credits | RouterPresence = CREDITS.validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord(explain(error, "credits record")) from None
    if isinstance(message, Credits) and message.mailbox >= mailboxes:
        raise InvalidRecord("the credits' mailbox is not a partition of this cluster")
    return message
