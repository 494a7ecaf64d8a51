"""Result: the one accepted end of a job."""

from __future__ import annotations

from enum import StrEnum

from shared.contracts.base import Contract, Count, EpochSeconds, JobId, Label, PriorityClass, Tenant
from shared.contracts.callback import Callback
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure
from shared.contracts.usage import Usage


class Status(StrEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Result(Contract):
    """A pure function of the settle event, so that repeats are byte-identical."""

    job: JobId
    tenant: Tenant = "default"
    status: Status
    answer: Answer | None = None
    failure: Failure | None = None
    usage: Usage = Usage()
    pattern: Label = "single"
    priority_class: PriorityClass = PriorityClass.STANDARD
    steps: Count = 0
    attempts: Count = 0
    accepted_at: EpochSeconds
    finished_at: EpochSeconds
    callback: Callback | None = None
    """The job's own: who reads `results` for it needs nothing else."""
