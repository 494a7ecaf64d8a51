"""Delayed: a record on its way through the delay tiers."""

from __future__ import annotations

from pydantic import NonNegativeInt

from shared.contracts.base import Contract, EpochSeconds


class Delayed(Contract):
    """Forward `value` with `key` and `headers` to `topic` (at `partition`, when given) once `due_at` is reached."""

    topic: str
    partition: NonNegativeInt | None = None
    due_at: EpochSeconds
    key: bytes | None = None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
