"""Delayed: a record on its way through the delay tiers; DelayedJob: what is told of a job that such a record carries."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from shared.contracts.base import (
    Contract,
    EpochSeconds,
    Headers,
    Label,
    ModelName,
    Partition,
    PriorityClass,
    RawBytes,
    Seconds,
    Tenant,
    TopicName,
)
from shared.contracts.callback import Callback


class Delayed(Contract):
    """Forward `value` with `key` and `headers` to `topic` (at `partition`, when given), at an instant or after a time: one of both."""

    topic: TopicName
    partition: Partition | None = None
    due_at: EpochSeconds | None = None
    """An instant that a user gave (`not_before`)."""
    seconds: Seconds | None = None
    """What is left of the wait when this is read, by the reader's own watch: no two machines' clocks are compared."""
    waited_seconds: Seconds = 0.0
    """How long it has been waited already, in earlier tiers."""
    key: RawBytes | None = None
    value: RawBytes
    headers: Headers = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.due_at is None) == (self.seconds is None):
            raise ValueError("either due_at or seconds says when")
        return self


class DelayedJob(Contract):
    """A job that waits for its `not_before`. Nobody holds it in memory: this is enough to show it, and to end it when it is cancelled."""

    due_at: EpochSeconds
    since: EpochSeconds
    """When it was submitted, or delayed."""
    tenant: Tenant = "default"
    priority_class: PriorityClass = PriorityClass.STANDARD
    pattern: Label = "single"
    model: ModelName = "auto"
    digest: Label = ""
    """Of the request, as in JobAccepted."""
    callback: Callback | None = None
    """Whom its end is told, where a cancel ends it."""
