"""Delayed: a record on its way through the delay tiers; DelayedJob: what is told of a job that such a record carries."""

from __future__ import annotations

from shared.contracts.base import Contract, EpochSeconds, Headers, Label, ModelName, Partition, PriorityClass, RawBytes, Tenant, TopicName


class Delayed(Contract):
    """Forward `value` with `key` and `headers` to `topic` (at `partition`, when given) once `due_at` is reached."""

    topic: TopicName
    partition: Partition | None = None
    due_at: EpochSeconds
    key: RawBytes | None = None
    value: RawBytes
    headers: Headers = ()


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
