"""Problems: why a caller gets no answer, as HTTP sees it. Pure: errors, failures and results in, `Problem` out; dialects render it."""

from __future__ import annotations

from typing import Any

from services.ingress.replies.assembly import StreamConflict
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.result import Result, Status
from shared.errors import LogError, Overloaded, TuttiError
from shared.problem import INSUFFICIENT_QUOTA, Problem, Refused, rendered
from shared.processing.blobs import BlobGone
from shared.service.known_problems import DO_NOT_RETRY, internal, of_known

__all__ = ["INSUFFICIENT_QUOTA", "Problem", "Refused", "rendered"]

K = FailureKind

STATUS_OF_FAILURE: dict[FailureKind, int] = {
    K.INVALID_JOB: 400,
    K.CONFLICT: 409,
    K.UNKNOWN_PATTERN: 400,
    K.UNKNOWN_MODEL: 404,
    K.BAD_REQUEST: 400,
    K.UNSUPPORTED: 400,
    K.TOO_LARGE: 413,
    K.BLOB_GONE: 410,
    K.CONTEXT_LENGTH: 400,
    K.OVERLOADED: 503,
    K.MODEL_ERROR: 502,
    K.MODEL_TIMEOUT: 504,
    K.NODE_UNREACHABLE: 502,
    K.BROKEN_STREAM: 502,
    K.INVALID_OUTPUT: 502,
    K.UNCLAIMED: 503,
    K.LEASE_EXPIRED: 503,
    K.NODE_LOST: 503,
    K.NO_NODE: 503,
    K.DEADLINE: 504,
    K.CANCELLED: 499,
    K.LIMIT: 400,
    K.GATE_FAILED: 422,
    K.BLOCKED: 422,
    K.UNCHECKED: 503,
    K.NON_DETERMINISTIC_PATTERN: 500,
    K.INTERNAL: 500,
}
"""499 (client closed request) is nobody's standard but everybody's habit; OpenAI's clients do not retry it."""

_RETRY_AFTER_SECONDS = 2.0
_KNOWN_SHOWN, _NAME_SHOWN = 100, 128


class ClientGone(TuttiError):
    """The client closed the connection."""

    code = "client_gone"


class InstanceLeaving(TuttiError):
    """The instance that waited for the answer is shutting down."""

    code = "leaving"
    retryable = True


def unknown_model(model: str, known: tuple[str, ...]) -> Problem:
    """No registered node has the model."""
    known = known[:_KNOWN_SHOWN]
    return Problem(
        404,
        "model_not_found",
        f"no node has the model {model[:_NAME_SHOWN]!r}; known: {', '.join(known)}",
        "model",
        details={"known_models": list(known)},
    )


def unsuitable_model(model: str, operation: str) -> Problem:
    """The model is there, and cannot do this on any node."""
    return Problem(400, "unsupported", f"the model {model!r} cannot {operation}", "model")


def context_exceeded(window: int | None, fewest: int | None = None) -> Problem:
    """The prompt is longer than the largest window. In OpenAI's words, by which agents know that they have to shorten it."""
    if window is None:
        excess = "The messages exceed this model's maximum context length."
    else:
        have = "more" if fewest is None else f"at least {fewest}"
        excess = f"This model's maximum context length is {window} tokens. However, your messages have {have}."
    details = {} if window is None else {"window": window}
    message = f"{excess} Please reduce the length of the messages."
    return Problem(400, "context_length_exceeded", message, "messages", details=details)


def no_node(missing: tuple[str, ...], retry_after_seconds: float) -> Problem:
    """Nothing that lives could do it; `missing` says what a node would need."""
    return Problem(503, "no_node", f"no node for this: missing {', '.join(missing)}", None, retry_after_seconds, {"missing": list(missing)})


def kafka_away(retry_after_seconds: float) -> Problem:
    """Kafka did not acknowledge in time."""
    return Problem(503, "log_unavailable", "the job could not be queued: Kafka does not answer", None, retry_after_seconds)


def registry_unread(retry_after_seconds: float) -> Problem:
    """What administrators declared is not known here yet."""
    return Problem(503, "not_ready", "the registry is not read yet", retry_after_seconds=retry_after_seconds)


def deadline_passed() -> Problem:
    """Nobody answered by the deadline."""
    return Problem(504, "deadline", "the deadline passed before there was an answer")


def of_error(error: Exception) -> Problem:
    """Of anything that was raised while serving a request."""
    match error:
        case Overloaded():
            return Problem(429, error.code, error.message, None, error.retry_after_seconds)
        case InstanceLeaving():
            return Problem(503, error.code, error.message, None, _RETRY_AFTER_SECONDS)
        case StreamConflict():
            return Problem(502, error.code, error.message)
        case BlobGone():
            return Problem(410, error.code, error.message)
    if (known := of_known(error)) is not None:
        return known
    return kafka_away(_RETRY_AFTER_SECONDS) if isinstance(error, LogError) else internal()


def of_result(result: Result) -> Problem:
    """Of a job that ended without an answer."""
    if result.failure is not None:
        return _of_failure(result.failure)
    if result.status is Status.EXPIRED:
        return deadline_passed()
    if result.status is Status.CANCELLED:
        return Problem(499, K.CANCELLED.value, "the job was cancelled")
    return Problem(500, K.INTERNAL.value, "the job failed without a reason")


def _of_failure(failure: Failure) -> Problem:
    if failure.kind is K.LIMIT and failure.limit is not None:
        return _of_limit(failure.limit, failure)
    if failure.kind is K.CONTEXT_LENGTH:
        return context_exceeded(failure.window)
    status = STATUS_OF_FAILURE[failure.kind]
    details: dict[str, Any] = {"missing": list(failure.missing)} if failure.missing else {}
    if failure.flagged:
        details["flagged"] = [each.model_dump() for each in failure.flagged]
    retry_after = failure.retry_after_seconds
    if retry_after is None and status == 503:
        retry_after = _RETRY_AFTER_SECONDS
    param = "model" if failure.kind is K.UNKNOWN_MODEL else None
    message = failure.message
    if failure.missing:
        message = f"{message} (missing: {', '.join(failure.missing)})"
    headers = (DO_NOT_RETRY,) if status == 409 else ()
    return Problem(status, failure.kind.value, message, param, retry_after, details, headers)


def _of_limit(limit: str, failure: Failure) -> Problem:
    """A tenant's limits are 429, as OpenAI has it: a day's budget is a quota, too much at once a rate. A job's own are in its request."""
    details = {"limit": limit}
    again = failure.retry_after_seconds
    match limit:
        case "tenant.calls" | "tenant.tokens" | "tenant.cost":
            return Problem(429, INSUFFICIENT_QUOTA, failure.message, None, again, details, (DO_NOT_RETRY,))
        case "tenant.jobs" | "tenant.steps" | "conversation.waiting" | "conversations":
            return Problem(429, "rate_limit_exceeded", failure.message, None, again or _RETRY_AFTER_SECONDS, details)
        case "tenant":
            return Problem(503, "budget_unavailable", failure.message, None, again or _RETRY_AFTER_SECONDS, details)
        case "wall_seconds":
            return Problem(504, K.LIMIT.value, failure.message, None, None, details)
        case _:
            return Problem(STATUS_OF_FAILURE[K.LIMIT], K.LIMIT.value, failure.message, None, None, details)
