"""Why an attempt, a step or a job did not succeed. A value, not an exception: it travels."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from shared.contracts.base import Contract, Count, Label, ModelName, NodeId, Seconds, Sentence, Text
from shared.contracts.verdict import Flagged


class FailureKind(StrEnum):
    """Low-cardinality cause; metrics are labelled with it. `shared.scheduling.retry` holds what follows from each."""

    INVALID_JOB = "invalid_job"
    CONFLICT = "conflict"
    UNKNOWN_PATTERN = "unknown_pattern"
    UNKNOWN_MODEL = "unknown_model"
    BAD_REQUEST = "bad_request"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    BLOB_GONE = "blob_gone"
    CONTEXT_LENGTH = "context_length"
    OVERLOADED = "overloaded"
    MODEL_ERROR = "model_error"
    MODEL_TIMEOUT = "model_timeout"
    NODE_UNREACHABLE = "node_unreachable"
    BROKEN_STREAM = "broken_stream"
    INVALID_OUTPUT = "invalid_output"
    UNCLAIMED = "unclaimed"
    LEASE_EXPIRED = "lease_expired"
    NODE_LOST = "node_lost"
    NO_NODE = "no_node"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    LIMIT = "limit"
    GATE_FAILED = "gate_failed"
    BLOCKED = "blocked"
    UNCHECKED = "unchecked"
    NON_DETERMINISTIC_PATTERN = "non_deterministic_pattern"
    INTERNAL = "internal"


ODD_SECONDS = 5.0
"""A deadline that lies further before its record's arrival than any way takes: somebody's clock is wrong, or it was never meant."""


def clocks_differ(deadline_at: float | None, written_ms: int) -> str:
    """What to add to the news that a user's deadline passed; empty when nothing is odd. `written_ms`: when the record arrived."""
    early = 0.0 if deadline_at is None else written_ms / 1000 - deadline_at
    return f"; it had passed {early:.0f} s before the record was written: do clocks differ?" if early >= ODD_SECONDS else ""


class Failure(Contract):
    """`message` is one sentence for people and holds no prompt text. `missing` says what a node would need."""

    kind: FailureKind
    message: Text
    node: NodeId | None = None
    model: ModelName | None = None
    retry_after_seconds: Seconds | None = None
    missing: tuple[Sentence, ...] = Field(default=(), max_length=64)
    window: Count | None = None
    """Of kind `context_length`: the tokens that the model has for prompt and answer, where that is known."""
    limit: Label | None = None
    """Of kind `limit`: which one is reached. The job's `calls`, `tokens`, `cost`, `steps`, `depth`, `width`, `wall_seconds`; its tenant's
    `tenant.calls`, `tenant.tokens`, `tenant.cost` (a day), `tenant.jobs` (at once), `tenant.steps` (that wait), or `tenant`: nobody could
    say in time what is left.
    """
    flagged: tuple[Flagged, ...] = Field(default=(), max_length=64)
    """Of kind `blocked`: what was found."""
