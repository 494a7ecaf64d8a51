"""Problem: why a caller over HTTP gets no answer, the same for every service that is asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from shared.errors import TuttiError

INSUFFICIENT_QUOTA = "insufficient_quota"
_ERROR_TYPES = {429: "rate_limit_error", 401: "authentication_error", 403: "permission_error"}


@dataclass(frozen=True, slots=True)
class Problem:
    """`message` is one sentence for people without any text of prompts. `details` are typed extras (known models, what is missing)."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_seconds: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Beside Retry-After."""


class Refused(TuttiError):
    """The caller gets this problem instead of an answer."""

    code = "refused"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def rendered(found: Problem) -> bytes:
    """{"error": {message, type, param, code}}, as OpenAI and tutti have it; besides when to come again, and the problem's typed details."""
    default = "server_error" if found.status >= 500 else "invalid_request_error"
    kind = INSUFFICIENT_QUOTA if found.code == INSUFFICIENT_QUOTA else _ERROR_TYPES.get(found.status, default)
    error: dict[str, Any] = {"message": found.message, "type": kind, "param": found.param, "code": found.code}
    if found.retry_after_seconds is not None:
        error["retry_after_seconds"] = found.retry_after_seconds
    return to_json({"error": error | found.details})
