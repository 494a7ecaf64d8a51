"""Result: the one accepted end of a job."""

from __future__ import annotations

from enum import StrEnum

from pydantic import NonNegativeInt

from shared.contracts.base import Contract, EpochSeconds, JobId, PriorityClass, Tenant
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
    pattern: str = "single"
    priority_class: PriorityClass = PriorityClass.STANDARD
    steps: NonNegativeInt = 0
    attempts: NonNegativeInt = 0
    accepted_at: EpochSeconds
    finished_at: EpochSeconds
