"""When a running call has taken too long: before its first token, between tokens, in total, beyond the user's deadline. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.attempt import Attempt
from services.worker.settings import WorkerSettings
from shared.contracts.failure import Failure, clocks_differ
from shared.contracts.failure import FailureKind as K


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    first_token: float
    between_tokens: float
    total: float

    @classmethod
    def of(cls, settings: WorkerSettings) -> Timeouts:
        """The worker's own."""
        return cls(
            settings.first_token_timeout_seconds,
            settings.between_tokens_timeout_seconds,
            settings.total_timeout_seconds,
        )


def expired(attempt: Attempt, now: float) -> Failure | None:
    """The failure of an attempt whose deadline has passed, by this worker's own watch."""
    if now < attempt.expires_at:
        return None
    message = "the deadline passed before the answer was there" + clocks_differ(attempt.step.deadline_at, attempt.written_ms)
    return Failure(kind=K.DEADLINE, message=message)


def overdue(attempt: Attempt, timeouts: Timeouts, now: float) -> Failure | None:
    """Why this attempt has to be stopped now; None while all is well. `now` is the monotonic clock."""
    late = expired(attempt, now)
    if late or attempt.asked_at is None or attempt.answered:
        return late
    if now - attempt.asked_at >= timeouts.total:
        return _hung(f"the answer was not complete after {timeouts.total:g} s")
    if attempt.progress_at is None:
        waited = now - attempt.asked_at
        return _hung(f"no token came in {timeouts.first_token:g} s") if waited >= timeouts.first_token else None
    if now - attempt.progress_at >= timeouts.between_tokens:
        return _hung(f"the stream stood still for {timeouts.between_tokens:g} s")
    return None


def _hung(message: str) -> Failure:
    return Failure(kind=K.MODEL_TIMEOUT, message=message)
