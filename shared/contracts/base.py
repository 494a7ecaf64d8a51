"""What all messages have in common: immutability, tolerant reading, compact writing, and types that bound every field.

Every number, text, list and map of a contract has a bound (a test walks all fields), so that no value of one record can overflow the
arithmetic of the service that reads it. Bounds are pydantic-core's own: they cost no call into Python, except for free JSON.
"""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, NewType, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter

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
JSON_DEPTH = MAX_DEPTH - 8
"""Of one free JSON value: what may lie around it (a schedule's job's message's tool call) keeps the whole within `MAX_DEPTH`."""
JSON_WEIGHT = 256 * 1024
"""Most values and characters of one free JSON value: one schema, one tool, one tool call."""
DAY_SECONDS = 86_400.0
YEAR_10000 = 253_402_300_800
"""In seconds since the Unix epoch: where instants end."""

# Numbers

MOST = 9_000_000_000_000
"""Largest count: the sum of a million of them still fits 63 bits."""
MOST_COST = 9_000_000.0
"""Largest cost, in the cluster's currency: `MOST` millionths of it."""

Count = Annotated[int, Field(ge=0, le=MOST)]
"""How many: tokens, calls, bytes, characters, places."""
Ordinal = Annotated[int, Field(ge=1, le=MOST)]
"""Which one, counted from 1; or how many, at least one."""
Partition = Annotated[int, Field(ge=0, lt=2**31)]
Offset = Annotated[int, Field(ge=-1, lt=2**63)]
"""In a partition; -1 where none is known."""
Cost = Annotated[float, Field(ge=0, le=MOST_COST)]
Quantity = Annotated[float, Field(ge=0, le=1e15)]
"""What is measured against a limit, of any unit."""
Seconds = Annotated[float, Field(ge=0, le=1e12)]
"""A duration: as long as any two instants lie apart."""
PositiveSeconds = Annotated[float, Field(gt=0, le=1e12)]
Milliseconds = Annotated[float, Field(ge=0, le=1e15)]
PerSecond = Annotated[float, Field(ge=0, le=1e9)]
"""A speed, in tokens a second."""


def at_most(total: int) -> int:
    """A sum of counts as a `Count`: beyond the largest one it stays there."""
    return min(total, MOST)


# Texts

Text = Annotated[str, StringConstraints(max_length=8 * 1024 * 1024)]
"""A prompt, an answer: as long as the largest body, in characters."""
Sentence = Annotated[str, StringConstraints(max_length=4_096)]
"""A reason, a message: for people."""
MOST_EXPLANATION = 1_024
Explanation = Annotated[str, StringConstraints(max_length=MOST_EXPLANATION)]
"""Why a node was chosen (`shared/placement/why.py`), as JSON."""
Label = Annotated[str, StringConstraints(max_length=256)]
"""A short word of no syntax."""
RawBytes = Annotated[bytes, Field(max_length=8 * 1024 * 1024)]
"""A record's key, value or header. In JSON as base64."""
Headers = Annotated[tuple[tuple[Annotated[str, StringConstraints(max_length=1024 * 1024)], RawBytes], ...], Field(max_length=1024 * 1024)]
"""A record's headers; the bounds are wider than what any record can hold."""
MAX_CORRELATION_BYTES = 256
Correlation = Annotated[bytes, Field(max_length=MAX_CORRELATION_BYTES)]
"""Opaque: the caller tells by it what a reply belongs to."""
MANY = 1024 * 1024
"""Items of a list that only the record's size bounds."""


def sentence(text: str) -> str:
    """Foreign text as a `Sentence`: what UTF-8 cannot say is replaced, what is too long is cut."""
    return text[:4_096].encode("utf-8", "replace").decode()


# Names

ID = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
TENANT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
SCHEDULE = r"[a-z0-9][a-z0-9._-]{0,63}"
TAG = r"[a-z0-9-]{1,32}"
TOPIC = r"[A-Za-z0-9._-]{1,249}"
DIGEST = r"[0-9a-f]{32}"
_UNSEEN = r"\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
"""Controls, line ends, marks without a width or that turn the direction of writing."""
_MODEL = rf"[^ \u00a0{_UNSEEN}](?:[^{_UNSEEN}]*[^ \u00a0{_UNSEEN}])?"
_BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=?|[A-Za-z0-9+/]{2}(?:==)?)"
_IMAGE = rf"(?:data:image/[A-Za-z0-9.+-]{{1,64}};base64,)?{_BASE64}"
IN_WORDS = {
    ID: "1 to 128 letters, digits, dots, colons, hyphens, underscores; the first a letter or digit",
    TENANT: "1 to 64 letters, digits, dots, hyphens, underscores; the first a letter or digit",
    SCHEDULE: "1 to 64 small letters, digits, dots, hyphens, underscores; the first a letter or digit",
    TAG: "1 to 32 small letters, digits, hyphens",
    TOPIC: "a topic's name: 1 to 249 letters, digits, dots, hyphens, underscores",
    _MODEL: "a name that can be seen, on one line",
    _IMAGE: "an image is base64, or a data address of it (data:image/png;base64,...); an address is not fetched",
}
"""What each pattern asks for, for people."""

PublicId = Annotated[str, StringConstraints(pattern=f"^{ID}$", max_length=128)]
"""A job's id as its caller gives it: unique within the tenant."""
JobId = Annotated[str, StringConstraints(pattern=f"^(?:{TENANT}/)?{ID}$", max_length=64 + 1 + 128)]
"""A job's id inside the cluster: `contracts/ids.py`."""
StepId = NewType("StepId", Annotated[str, StringConstraints(max_length=128)])
"""32 hex digits, derived (ARCHITECTURE, planner protocol)."""
ClaimId = NewType("ClaimId", Annotated[str, StringConstraints(max_length=256)])
"""node + boot + counter."""
NodeId = Annotated[str, StringConstraints(pattern=f"^{ID}$", max_length=128)]
ScheduleId = Annotated[str, StringConstraints(pattern=f"^(?:{TENANT}/)?{SCHEDULE}$", max_length=64 + 1 + 64)]
"""A schedule's id inside the cluster: its tenant's name for it, under the tenant (`ids.under`)."""
Tenant = Annotated[str, StringConstraints(pattern=f"^{TENANT}$", max_length=64)]
ModelName = Annotated[str, StringConstraints(pattern=f"^{_MODEL}$", max_length=200)]
"""As its server spells it: `gemma3:270m`, `/models/x.gguf`, `C:\\models\\my model.gguf`; or `auto`. All that can be seen, on one line."""
Capability = Annotated[str, StringConstraints(pattern=f"^{TAG}$", max_length=32)]
TopicName = Annotated[str, StringConstraints(pattern=f"^{TOPIC}$", max_length=249)]
IMAGE_CHARACTERS = 8 * 1024 * 1024


def _padded(image: str) -> str:
    """Callers leave the padding out; model servers want it."""
    padded = image + "=" * (-len(image[image.find(",") + 1 :]) % 4)
    if len(padded) > IMAGE_CHARACTERS:
        raise ValueError(f"an image has at most {IMAGE_CHARACTERS} characters")
    return padded


Image = Annotated[str, StringConstraints(pattern=f"^{_IMAGE}$", max_length=IMAGE_CHARACTERS), AfterValidator(_padded)]
"""Base64, padded here, bare or as a data address. Never another address: nothing makes a model server fetch one."""


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


EpochSeconds = Annotated[float, Field(ge=0, lt=YEAR_10000)]
"""Seconds since the Unix epoch, before the year 10000. For what services write: it is checked without a call into Python."""
Instant = Annotated[float, Field(ge=0, lt=YEAR_10000), BeforeValidator(_instant, json_schema_input_type=float | str)]
"""The same as people write it: ISO 8601 with an offset is accepted besides."""


# Free JSON


def free_json(value: Any) -> Any:
    """What JSON can say and every reader understands: finite numbers, integers of 64 bits, text, at most `JSON_DEPTH` levels."""
    _weight([value], JSON_DEPTH + 1)
    return value


def _weight(container: Any, levels: int) -> int:
    """Its values and characters, counted only up to the bound."""
    if not levels:
        raise ValueError(f"JSON is nested deeper than {JSON_DEPTH} levels")
    weight = len(container)
    items = container
    if type(container) is dict:
        items = container.values()
        for key in container:
            if type(key) is not str:
                raise ValueError("a key is not a text")
            weight += len(key) if key.isascii() else _characters(key)
    for item in items:
        if weight > JSON_WEIGHT:
            raise ValueError(f"the JSON has more than {JSON_WEIGHT} values and characters")
        kind = type(item)
        if kind is str:
            weight += len(item) if item.isascii() else _characters(item)
        elif kind is dict or kind is list:
            weight += _weight(item, levels - 1)
        elif kind is float:
            if not math.isfinite(item):
                raise ValueError("a number is not finite")
        elif kind is int:
            if not -(2**63) <= item < 2**64:
                raise ValueError("an integer has more than 64 bits")
        elif item is not None and kind is not bool:
            raise ValueError("a value is none of JSON's")
    if weight > JSON_WEIGHT:
        raise ValueError(f"the JSON has more than {JSON_WEIGHT} values and characters")
    return weight


def _characters(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("a text is not valid Unicode") from None


JsonObject = Annotated[dict[str, Any], AfterValidator(free_json)]
"""Free JSON: a schema, a tool, a tool call. What is accepted reads back equal."""
JsonValue = Annotated[Any, AfterValidator(free_json)]


_set = object.__setattr__


class Contract(BaseModel):
    """A value that travels. Unknown fields are ignored, so that an older reader survives a newer writer within a version."""

    checks_valid: ClassVar[bool] = False
    """Tests only (`of_valid`)."""
    _by_default: ClassVar[dict[str, Any]]
    """All fields in their order; None where there is no default."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64")

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        cls._by_default = {
            name: None if of.is_required() else of.get_default(call_default_factory=True) for name, of in cls.model_fields.items()
        }

    def __eq__(self, other: object) -> bool:
        """As pydantic's, without what no contract has, and first whether both are one: defaults are compared when they are left out."""
        if self is other:
            return True
        return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented

    __hash__ = BaseModel.__hash__  # what stands beside an `__eq__` is taken for its own; pydantic makes one for frozen models

    def to_bytes(self) -> bytes:
        """Compact JSON without absent fields."""
        return self.encoded()

    def encoded(self, **options: Any) -> bytes:
        """All JSON of contracts is made here. `options`: of pydantic."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True, **options)

    @classmethod
    def of_valid(cls, **fields: Any) -> Self:
        """As `cls(**fields)`, of values that are valid already: nothing is checked, which takes 1 us instead of 2 to 5.

        Tests check that a validated one is the same.
        """
        made = cls.__new__(cls)
        _set(made, "__dict__", {**cls._by_default, **fields})
        _set(made, "__pydantic_fields_set__", set(fields))
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        if Contract.checks_valid:
            checked = cls(**fields)
            same = {n: (type(v), v) for n, v in made.__dict__.items()} == {n: (type(v), v) for n, v in checked.__dict__.items()}
            assert same, f"not a valid {cls.__name__} as it is"
        return made

    def changed(self, **fields: Any) -> Self:
        """A copy with other fields, validated like any message: `model_copy` would take whatever it is given."""
        return self.model_validate({**self.__dict__, **fields})


def adapter(union: Any) -> TypeAdapter[Any]:
    """Reader of a union of messages. `Any` keeps the union from mypy, whose incremental cache takes it for no type at all."""
    return TypeAdapter(union)
