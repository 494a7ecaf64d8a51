"""What all messages have in common: immutability, tolerant reading, compact writing, bounded identifiers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NewType

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter

VERSION = 1
"""Version of every message written by this code (header `version`). A reader accepts this and every lower one."""

INLINE_BYTES = 64 * 1024
"""Largest body that travels inside a record."""
RECORD_BYTES = 256 * 1024
"""Largest record: producer, topic and consumer limits derive from it."""
BATCH_BYTES = 1024 * 1024
"""Largest record batch: one round of the planner."""
MAX_DEPTH = 32
"""Deepest nesting of JSON that is accepted from outside."""

_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
_TAG = r"^[a-z0-9-]{1,32}$"

JobId = Annotated[str, StringConstraints(pattern=_ID)]
"""`j_` + ULID, or the caller's own."""
StepId = NewType("StepId", str)
"""32 hex digits, derived (DESIGN 6)."""
ClaimId = NewType("ClaimId", str)
"""node + boot + counter."""
NodeId = Annotated[str, StringConstraints(pattern=_ID)]
ScheduleId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Tenant = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ModelName = Annotated[str, StringConstraints(pattern=_NAME)]
"""As Ollama spells it (`gemma3:270m`), or `auto`."""
Capability = Annotated[str, StringConstraints(pattern=_TAG)]


class PriorityClass(StrEnum):
    """How urgent a job is; most urgent first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


CLASSES: tuple[PriorityClass, ...] = tuple(PriorityClass)


def _instant(value: Any) -> Any:
    """Accept ISO 8601 with an offset besides epoch seconds."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("an instant is seconds since 1970 or ISO 8601, for example 2026-01-31T12:00:00Z") from None
        if moment.tzinfo is None:
            raise ValueError("an instant needs an offset, for example 2026-01-31T12:00:00Z")
        return moment.timestamp()
    return value


EpochSeconds = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""Seconds since the Unix epoch, before the year 10000. For what services write: it is checked without a call into Python."""
Instant = Annotated[float, Field(ge=0, lt=253_402_300_800), BeforeValidator(_instant, json_schema_input_type=float | str)]
"""The same as people write it: ISO 8601 with an offset is accepted besides."""


class Contract(BaseModel):
    """A value that travels. Unknown fields are ignored, so that an older reader survives a newer writer within a version."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64")

    def to_bytes(self) -> bytes:
        """Compact JSON without absent fields."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)


def adapter(union: Any) -> TypeAdapter[Any]:
    """Reader of a union of messages. `Any` keeps the union from mypy, whose incremental cache takes it for no type at all."""
    return TypeAdapter(union)
