"""Dead letters sent again, the same for whoever does it: the original bytes to where they were sent first."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from shared.contracts.dead_letter import DeadLetter
from shared.contracts.headers import REPLAY_OF, Envelope, Origin
from shared.errors import InvalidInput, NotFound, TuttiError
from shared.kafka.port import Appended, Message, Producer, Record, TopicPartition, tenant_of

_ADDRESS = re.compile(r"(\d{1,9}):(\d{1,18})", re.ASCII)
_BATCH = 500


class KeptInPart(TuttiError):
    """The record was too large to be kept whole, and cannot be sent again."""

    code = "kept_in_part"


class Letter(NamedTuple):
    """A dead letter and its address, `partition:offset`."""

    id: str
    content: DeadLetter
    tenant: str | None = None
    """For whom it is sealed."""


def letters_of(records: Iterable[Record]) -> list[Letter]:
    """Every readable one, in their order."""
    found = []
    for record in records:
        try:
            found.append(
                Letter(f"{record.partition}:{record.offset}", DeadLetter.model_validate_json(record.value or b""), tenant_of(record))
            )
        except ValidationError:
            continue
    return found


def address(letter_id: str, topic: str) -> tuple[TopicPartition, int]:
    """Where `partition:offset` lies. Raises InvalidInput."""
    found = _ADDRESS.fullmatch(letter_id)
    if found is None:
        raise InvalidInput(f"{letter_id!r} is no dead letter's id: partition:offset")
    return TopicPartition(topic, int(found[1])), int(found[2])


def find_letter(letters: Iterable[Letter], letter_id: str) -> Letter:
    """The letter at an address. Raises NotFound."""
    for letter in letters:
        if letter.id == letter_id:
            return letter
    raise NotFound(f"there is no dead letter {letter_id}; `tutti dead-letters list` shows them")


def original(letter: Letter) -> Message:
    """The record as it was, on its own partition (home is where a job arrived), marked with where the very first one lay.

    From that mark a job without an id gets the id that it would have had: sent twice, it is one job. Raises KeptInPart.
    """
    content = letter.content
    if content.truncated:
        raise KeptInPart(f"{letter.id} was kept only in part (it was too large) and cannot be sent again")
    lay = Envelope(content.headers).replay_of() or Origin(content.topic, content.partition, content.offset, content.timestamp or 0)
    headers = tuple(header for header in content.headers if header[0] != REPLAY_OF)
    return Message(content.topic, content.value, content.key, content.partition, (*headers, lay.header()), letter.tenant)


async def send_again(producer: Producer, letters: Sequence[Letter]) -> AsyncIterator[tuple[Letter, Appended]]:
    """Where each lies now, in order, in batches. What was sent before an error stays sent: doing it all again is harmless.

    Raises KeptInPart before anything is sent, LogError.
    """
    messages = [original(letter) for letter in letters]
    for first in range(0, len(messages), _BATCH):
        sent = await producer.send_many(messages[first : first + _BATCH])
        for letter, place in zip(letters[first:], sent, strict=False):
            if isinstance(place, Exception):
                raise place
            yield letter, place
