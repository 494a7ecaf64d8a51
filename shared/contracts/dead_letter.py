"""DeadLetter: a record that could not be processed, kept with the reason. The original bytes travel in base64, cut at a bound."""

from __future__ import annotations

from pydantic import NonNegativeInt

from shared.contracts.base import Contract, EpochSeconds


class DeadLetter(Contract):
    """Where the record lay and why it was refused. `truncated`: the original is larger than what is kept."""

    topic: str
    partition: NonNegativeInt
    offset: int
    timestamp: int | None = None
    """Of the original record, milliseconds since 1970: part of the id of a job that came without one. Absent in older letters."""
    service: str
    reason: str
    code: str
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    truncated: bool = False
    at: EpochSeconds
