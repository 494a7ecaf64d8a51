"""Problems that every service has which is asked over HTTP: which answer an error of ours is. Pure. A service's own come first, there."""

from __future__ import annotations

from pydantic import ValidationError

from shared.contracts.bounds import fault_of
from shared.errors import Conflict, InvalidInput, NotFound, RecordTooLarge, TooLarge, Unsupported
from shared.problem import Problem, Refused
from shared.processing.replay import KeptInPart

BODY_SECONDS = 60.0
"""A body that has not arrived by then is given up."""
DO_NOT_RETRY = (b"x-should-retry", b"false")
"""OpenAI's clients obey it; without it they would try a spent budget or a conflict twice more."""


def of_known(error: Exception) -> Problem | None:
    """Of what means the same everywhere; None: whoever was asked says what it is."""
    match error:
        case Refused():
            return error.problem
        case ValidationError():
            return of_fault(error)
        case TooLarge() | RecordTooLarge():
            return Problem(413, TooLarge.code, error.message)
        case Unsupported():
            return Problem(400, Unsupported.code, error.message, error.param)
        case InvalidInput():
            return Problem(400, error.code, error.message, error.param)
        case NotFound():
            return Problem(404, error.code, error.message)
        case Conflict():
            return Problem(409, error.code, error.message, headers=(DO_NOT_RETRY,))
        case KeptInPart():
            return Problem(409, error.code, error.message)
    return None


def of_fault(error: ValidationError) -> Problem:
    """The first complaint, by field; what programs tell apart has a code of its own. The offending value is never repeated: it may be a
    prompt.
    """
    kind, place, message = fault_of(error)
    if kind == "json_invalid":
        return Problem(400, "invalid_json", "the body is not JSON")
    if kind == "extra_forbidden":
        return Problem(400, "unknown_field", f"unknown field {place!r}", place)
    return Problem(400, InvalidInput.code, f"{place}: {message}" if place else message, place or None)


def internal() -> Problem:
    """Of what nobody raises on purpose: nothing more is told."""
    return Problem(500, "internal", "something went wrong inside tutti")


def too_slow(what: str, seconds: float) -> Refused:
    """`what` of a body has not come in time."""
    return Refused(Problem(408, "body_too_slow", f"{what} within {seconds:g} s"))
