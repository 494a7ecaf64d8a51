"""TakenAhead: the event of `job-events` that says which records of a jobs topic are done with ahead of the committed position."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.contracts.base import Contract, EpochSeconds, Offset, Sentence

MOST_TAKEN = 131_072
"""Offsets that one TakenAhead reaches over."""
MOST_TAKEN_BYTES = MOST_TAKEN // 8 + 1_024
"""However little there is to gain by coding them."""


class TakenAhead(Contract):
    """Which records of a jobs topic are done with: all before `base`, and of those from there on the ones whose bits are set. The newest of
    these events of a topic counts. They need not be in history any more.
    """

    type: Literal["taken_ahead"] = "taken_ahead"
    epoch: Offset
    at: EpochSeconds
    topic: Sentence
    """With its id, as in a job's source: another topic of that name has the same offsets."""
    base: Offset
    bits: bytes = Field(max_length=MOST_TAKEN_BYTES)
    """Bit n of byte m: base + 8 m + n; deflated (RFC 1951), which codes runs by their lengths."""
