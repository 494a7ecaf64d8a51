"""tutti's own dialect: the body of `POST /v1/jobs`, and events as JSON. Pure."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import to_json

from services.ingress.status.shown import RawEvent, parse, shown
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.event import facts_of
from shared.contracts.job import Job


class JobSubmission(Job):
    """The Job contract plus `class`."""

    model_config = ConfigDict(extra="forbid")
    _beside: ClassVar = {"tenant", "priority_class"}

    priority_class: PriorityClass = Field(default=PriorityClass.STANDARD, alias="class")

    @field_validator("id")
    @classmethod
    def _is_the_callers(cls, given: str | None) -> str | None:
        if given is not None and ids.is_reserved(given):
            raise ValueError("ids that begin with j_, k_ or s_ are tutti's own; choose another, or leave it out")
        return given

    def named_tenant(self) -> str | None:
        """The tenant that the body names."""
        return self.tenant if "tenant" in self.model_fields_set else None

    def to_bytes(self) -> bytes:
        """Of the Job."""
        return self.encoded(exclude={"priority_class"})


def events(raw: RawEvent, job: str) -> list[tuple[str, bytes]]:
    """Names and data of the events of `GET /v1/jobs/{id}/events` that this record is: each fact in it that callers see."""
    found = parse(raw.kind, raw.value)
    seen = [(fact.type, shown(fact)) for fact in (() if found is None else facts_of(found))]
    return [(kind, to_json({"type": kind, "job": job, **fields})) for kind, fields in seen if fields]


def chunk(job: str, offset: int, text: str) -> bytes:
    """The data of a `chunk` event; `offset` counts characters from the start of the answer."""
    return to_json({"type": "chunk", "job": job, "offset": offset, "text": text})
