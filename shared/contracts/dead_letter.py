"""DeadLetter: a record that could not be processed, kept with the reason. The original bytes travel in base64, cut at a bound."""

from __future__ import annotations

from shared.contracts.base import Contract, EpochSeconds, Headers, Label, Offset, Partition, RawBytes, Sentence, TopicName


class DeadLetter(Contract):
    """Where the record lay and why it was refused. `truncated`: the original is larger than what is kept."""

    topic: TopicName
    partition: Partition
    offset: Offset
    timestamp: Offset | None = None
    """Of the original record, milliseconds since 1970: part of the id of a job that came without one. Absent in older letters."""
    service: Label
    reason: Sentence
    code: Label
    key: RawBytes | None = None
    value: RawBytes | None = None
    headers: Headers = ()
    truncated: bool = False
    at: EpochSeconds
