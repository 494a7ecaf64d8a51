"""Records as what the sink keeps of them. What is no message of its topic is an InvalidRecord: nobody owns it, so it is passed over."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError

from shared.contracts import headers
from shared.contracts.base import VERSION
from shared.contracts.bounds import explain
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.event import EVENT, PlannerStarted
from shared.contracts.node import Node
from shared.contracts.versions import NEWEST
from shared.epochs import EpochFilter, epoch_of
from shared.errors import InvalidRecord
from shared.kafka.port import Record
from shared.processing.node_table import read_node
from shared.processing.tries import message

_STARTED = b"planner_started"


class Valid(NamedTuple):
    """A valid event where it lies. `at_ms`: its arrival by the brokers' clock."""

    offset: int
    at_ms: int
    event: Any
    value: bytes


def read_event(record: Record, epochs: EpochFilter) -> Valid | None:
    """The event, if it is valid (`shared/epochs.py`). Raises InvalidRecord."""
    value = record.value
    if value is None:
        raise InvalidRecord("an event has no value")
    if headers.Envelope(record.headers).version() > NEWEST:
        raise InvalidRecord("the event's version is newer than this service")
    begins = headers.find(record.headers, headers.TYPE) == _STARTED
    if not begins and not epochs.admits_value(value, record.offset):
        return None  # of a planner that had been succeeded
    try:
        event = EVENT.validate_json(value)
    except ValidationError as error:
        raise InvalidRecord(explain(error, "event")) from None
    if begins:
        if not isinstance(event, PlannerStarted):
            raise InvalidRecord("the event is another than its header says")
        epochs.started(record.offset)
    return Valid(record.offset, record.timestamp, event, value)


def leading_epochs(records: list[Record]) -> list[int]:
    """The epochs before the first PlannerStarted, where reading begins and the store knows none: the highest is in force."""
    found = []
    for record in records:
        if headers.find(record.headers, headers.TYPE) == _STARTED:
            break
        epoch = epoch_of(record.value or b"")
        if epoch is not None and epoch < record.offset:
            found.append(epoch)
    return found


def read_letter(record: Record) -> DeadLetter:
    """Raises InvalidRecord."""
    return message(record, DeadLetter.model_validate_json, "dead letter")


def read_announcement(record: Record) -> tuple[str, Node | None]:
    """Whose, and what; None: it has left. Raises InvalidRecord."""
    if headers.Envelope(record.headers).version() > VERSION:
        raise InvalidRecord("the node's version is newer than this service")
    try:
        return read_node(record)
    except ValidationError as error:
        raise InvalidRecord(explain(error, "node")) from None
