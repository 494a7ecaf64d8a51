"""What the facts of a job's history have in common, and how they are written."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from shared.contracts.base import Contract, EpochSeconds, JobId, Offset
from shared.contracts.job import Job


class Fact(Contract):
    _part: ClassVar[str | None] = None
    """The field that is written by itself, before all others: what a caller wrote is not mistaken for what the planner says behind it."""

    epoch: Offset
    job: JobId
    at: EpochSeconds
    """The writer's wall clock, for people; nothing is decided by it."""

    def to_bytes(self, part: bytes | None = None) -> bytes:
        """Compact JSON, epoch and type first, without what is as it is by default. `part`: that field's JSON, if it is there already."""
        head, in_front = _form(type(self), self._part)
        head %= self.epoch
        if self._part is not None:
            value = getattr(self, self._part)
            written = part or (value.record() if isinstance(value, Job) else value.to_bytes())
            head += b'"%b":%b,' % (self._part.encode(), written)
        return head + self.encoded(exclude_defaults=True, exclude=in_front)[1:]


@cache
def _form(event: type[Fact], part: str | None) -> tuple[bytes, set[str]]:
    """How an event of this type begins, and what is written before the rest."""
    kind: str = event.model_fields["type"].default
    return b'{"epoch":%%d,"type":"%b",' % kind.encode(), {"epoch", "type"} | ({part} if part else set())
