"""Delayed: a record on its way through the delay tiers; DelayedJob: what is told of a job that such a record carries."""

from __future__ import annotations

from pydantic import NonNegativeInt

from shared.contracts.base import Contract, EpochSeconds, ModelName, PriorityClass, Tenant


class Delayed(Contract):
    """Forward `value` with `key` and `headers` to `topic` (at `partition`, when given) once `due_at` is reached."""

    topic: str
    partition: NonNegativeInt | None = None
    due_at: EpochSeconds
    key: bytes | None = None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class DelayedJob(Contract):
    """A job that waits for its `not_before`. Nobody holds it in memory: this is enough to show it, and to end it when it is cancelled."""

    due_at: EpochSeconds
    since: EpochSeconds
    """When it was submitted, or delayed."""
    tenant: Tenant = "default"
    priority_class: PriorityClass = PriorityClass.STANDARD
    pattern: str = "single"
    model: ModelName = "auto"
    digest: str = ""
    """Of the request, as in JobAccepted."""
