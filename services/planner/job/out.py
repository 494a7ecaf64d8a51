"""OutJob: what is kept of a job that has ended and whose result is out, until the position that is committed has passed its record.

Records are taken out of their order where tenants take turns, so that may take a while; a successor reads such a record again, and must
find the job in history. Its result is read again from history where somebody asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.planner.job.live import LiveJob


@dataclass(frozen=True, slots=True)
class OutJob:
    """About 400 bytes, whatever the job was. `source`: topic/partition/offset of its record; offsets of `job-events`."""

    id: str
    source: str
    source_offset: int
    first_offset: int
    settled_offset: int

    @classmethod
    def of(cls, job: LiveJob, first_offset: int) -> OutJob:
        return cls(job.id, job.accepted.source, job.source_offset, first_offset, job.settled_offset)

    @property
    def source_topic(self) -> str:
        return self.source.rsplit("/", 2)[0]
