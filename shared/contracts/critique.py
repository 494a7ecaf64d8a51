"""Critique: what texts are judged by without a model, what was found, and a tenant's policies on what goes in and what comes out.

Findings name check, kind and place, never the text itself; their sentences may quote it, and go to the job's own tenant alone.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from shared.contracts.agents import Reference
from shared.contracts.base import Contract, Count, JsonObject, ModelName, Ordinal, Text
from shared.contracts.blob import BlobRef
from shared.contracts.verdict import Direction

MOST_POLICIES = 8
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
Share = Annotated[float, Field(gt=0, le=1)]
PersonalKind = Literal["email", "phone", "iban", "card", "ip", "ssn"]
Language = Literal["de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv", "tr", "ar", "el", "he", "hi", "ja", "ko", "ru", "th", "zh"]
Action = Literal["block", "redact", "retry", "flag"]
WINDOWED = ("personal_data", "secrets", "toxicity", "forbidden")
"""Checks that find bounded places in a text: what they find can be redacted, and a stream be checked while it leaves."""


class CheckSet(Contract):
    """What texts must be and must not be. Each field is a check; one that is not given is not made."""

    model_config = ConfigDict(extra="forbid")

    json_schema: JsonObject | None = None
    """The text is JSON of this schema, alone and whole."""
    min_chars: Count | None = None
    max_chars: Ordinal | None = None
    language: tuple[Language, ...] = Field(default=(), max_length=32)
    """It is in one of these; a text that tells none is in none of them only where it is long enough to tell."""
    refusal: bool = False
    """It refuses no task."""
    repetition: bool = False
    """Its end is no loop."""
    required: tuple[Phrase, ...] = Field(default=(), max_length=32)
    forbidden: tuple[Phrase, ...] = Field(default=(), max_length=32)
    """Case, spaces and forms of signs do not count in either."""
    citations: bool = False
    """Numbers in brackets are documents', counted from 1."""
    must_cite: bool = False
    quotes: bool = False
    """What is quoted stands in a document."""
    personal_data: tuple[PersonalKind, ...] = Field(default=(), max_length=16)
    secrets: bool = False
    toxicity: bool = False
    """By a list of words."""
    sentiment: Annotated[float, Field(ge=-1, le=1)] | None = None
    """At least this, of -1 to 1; by a list of words."""
    injection: bool = False
    """Phrases that give a model orders; for documents and inputs."""
    support: Share | None = None
    """At least this share of the text's words, numbers and names stands in the documents. That is no truth."""

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the checks that are made."""
        return tuple(name for name, value in self if not (value is None or value is False or value == ()))

    @property
    def windowed(self) -> bool:
        """Whether all of them find bounded places."""
        return all(name in WINDOWED for name in self.asked)


class Critique(Contract):
    """Of a step of operation `critique`: by what its `texts` are judged. With an `input_ref` the texts of that are judged, or, where
    there are texts or an `answer`, they are documents.
    """

    checks: CheckSet
    documents: tuple[Text, ...] = Field(default=(), max_length=1_100)
    answer: BlobRef | None = None
    """The text of the answer in this blob is judged."""


class PolicyJudge(Contract):
    """Who judges besides, once the checks have passed: a score of `accept` or more, of 5, is an approval."""

    model_config = ConfigDict(extra="forbid")

    agent: Reference = "critic"
    model: ModelName | None = None
    rubric: str = Field(min_length=1, max_length=4_000)
    accept: int = Field(default=4, ge=1, le=5)
    only_in_doubt: bool = False
    """Asked only where a check has passed narrowly."""


class TenantPolicy(Contract):
    """What becomes of a tenant's inputs, or answers, in which something is found.

    `block`: the job fails, typed. `redact`: what is found is replaced by its kind. `retry`: one more answer, `times` at most, then
    blocked. `flag`: noted. `away`: what holds where nobody could check; of block and redact `refuse`, since they protect, else `pass`.
    """

    model_config = ConfigDict(extra="forbid")

    direction: Direction
    checks: CheckSet
    action: Action = "block"
    away: Literal["pass", "refuse"] | None = None
    times: int = Field(default=1, ge=1, le=3)
    judge: PolicyJudge | None = None

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.checks.asked and self.judge is None:
            raise ValueError("a policy has checks, or a judge")
        if self.action == "redact" and not (self.checks.windowed and self.judge is None):
            raise ValueError(f"what can be redacted is found by {', '.join(WINDOWED)} alone")
        if self.action == "retry" and self.direction == "input":
            raise ValueError("an input is not asked for again: retry is for answers")
        return self

    @property
    def refuses(self) -> bool:
        """Whether nothing passes while nobody can check."""
        return self.away == "refuse" if self.away is not None else self.action in ("block", "redact")

    @property
    def streams(self) -> bool:
        """Whether a stream can be checked while it leaves; what only notes holds nothing up."""
        return self.action == "flag" or (self.action in ("block", "redact") and self.checks.windowed and self.judge is None)


Policies = Annotated[tuple[TenantPolicy, ...], Field(max_length=MOST_POLICIES)]


class Guard(Contract):
    """Of a streaming step: what its worker lets through."""

    checks: CheckSet
    action: Literal["block", "redact"]
