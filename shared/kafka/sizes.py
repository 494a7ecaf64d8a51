"""What a record weighs, counted alike by both adapters, and the bounds checked before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

from shared.contracts.base import BATCH_BYTES, RECORD_BYTES
from shared.contracts.headers import SEALED
from shared.errors import RecordTooLarge
from shared.kafka.port import Message

RECORD_OVERHEAD = 32
"""Upper bound of Kafka's framing of one record: lengths, deltas, attributes, counts."""
HEADER_OVERHEAD = 8
SEAL_OVERHEAD = 59
"""What a seal adds to a record at most, on top of its bound: header, form, nonce, tag (`shared.sealing`)."""


def message_bytes(message: Message) -> int:
    """Bytes of one message in a record batch, framing included; never less than the truth."""
    size = RECORD_OVERHEAD
    if message.value is not None:
        size += len(message.value)
    if message.key is not None:
        size += len(message.key)
    for name, value in message.headers:
        size += HEADER_OVERHEAD + len(name) + len(value)
    return size


def check_record(message: Message) -> int:
    """The size of `message`. Raises RecordTooLarge above RECORD_BYTES, not counting a seal."""
    size = message_bytes(message)
    if size > RECORD_BYTES and size > RECORD_BYTES + (SEAL_OVERHEAD if message.headers and message.headers[0][0] == SEALED else 0):
        raise RecordTooLarge(f"a record of {size} bytes for {message.topic} exceeds the bound of {RECORD_BYTES}")
    return size


def check_batch(messages: Sequence[Message]) -> int:
    """The size of all `messages` together. Raises RecordTooLarge when one, or their sum, exceeds its bound."""
    size = sum(check_record(message) for message in messages)
    if size > BATCH_BYTES:
        raise RecordTooLarge(f"a batch of {size} bytes for {messages[0].topic} exceeds the bound of {BATCH_BYTES}")
    return size
