"""Records of `steps.*` and `credits` as messages. A record that is none is an InvalidRecord, for the dead letters."""

from __future__ import annotations

from pydantic import ValidationError

from shared.contracts.bounds import explain
from shared.contracts.credits import CREDITS, Credits, RouterPresence
from shared.contracts.step import Step
from shared.errors import InvalidRecord
from shared.kafka.port import Record
from shared.processing.tries import message
from shared.topics import TopicSettings


def read_step(record: Record, settings: TopicSettings) -> Step:
    """The step of a `steps.*` record. Raises InvalidRecord."""
    step = message(record, Step.model_validate_json, "step")
    if step.capability not in settings.capabilities:
        raise InvalidRecord("the step's capability is not one of this cluster's")
    if step.home >= settings.home_partitions:
        raise InvalidRecord("the step's home is not a partition of this cluster")
    return step


def read_credits(record: Record, mailboxes: int) -> Credits | RouterPresence:
    """Raises InvalidRecord, also for places in a mailbox that does not exist: no step could be sent there."""
    try:
        found: Credits | RouterPresence = CREDITS.validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord(explain(error, "credits record")) from None
    if isinstance(found, Credits) and found.mailbox >= mailboxes:
        raise InvalidRecord("the credits' mailbox is not a partition of this cluster")
    return found
