"""Schedule: a recurring job, as it lies in the registry. Its id lies under the tenant of its jobs: `contracts/ids.py`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from shared.contracts.base import Contract, EpochSeconds, PriorityClass, ScheduleId
from shared.contracts.job import Job

KIND = "schedule"
"""Of its key in the registry: `schedule/<id>`."""
LATE_SECONDS = 60.0
CronText = Annotated[str, Field(min_length=1, max_length=200)]
"""Five fields (minute hour day month weekday), or six with seconds first."""
TimeZone = Annotated[str, Field(max_length=64)]
"""A name of the IANA data base."""
LateSeconds = Annotated[float, Field(ge=1, le=86_400)]
"""A run that begins later than this was missed."""


class Missed(StrEnum):
    """What becomes of runs that nobody could begin in time, because no planner was there."""

    SKIP = "skip"
    LAST = "last"
    """The newest of them runs, unless a run that is not late follows anyway."""
    ALL = "all"
    """All of them, up to a bound; the oldest are dropped beyond it."""


class Schedule(Contract):
    """Each time that `cron` names in `time_zone` begins a job with this body."""

    id: ScheduleId
    cron: CronText
    time_zone: TimeZone = "UTC"
    job: Job
    priority_class: PriorityClass = PriorityClass.STANDARD
    missed: Missed = Missed.LAST
    late_seconds: LateSeconds = LATE_SECONDS
    enabled: bool = True
    since: EpochSeconds
    """Runs that were due up to this instant are none of this schedule's."""

    @model_validator(mode="after")
    def _job_is_a_template(self) -> Self:
        if self.job.id is not None or self.job.not_before is not None or self.job.deadline_at is not None:
            raise ValueError("a schedule's job has no id, not_before or deadline_at of its own: each run gets them")
        return self
