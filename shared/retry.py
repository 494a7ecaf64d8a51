"""What follows from a failure: a pure policy. No I/O, no waiting; randomness is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from shared.contracts.failure import FailureKind

K = FailureKind


class Disposition(Enum):
    """Whether another attempt makes sense, and where."""

    NEVER = "never"
    ELSEWHERE = "elsewhere"
    """On another node when there is one."""
    ANYWHERE = "anywhere"


DISPOSITION: dict[FailureKind, Disposition] = {
    K.INVALID_JOB: Disposition.NEVER,
    K.CONFLICT: Disposition.NEVER,
    K.UNKNOWN_PATTERN: Disposition.NEVER,
    K.UNKNOWN_MODEL: Disposition.ELSEWHERE,
    K.BAD_REQUEST: Disposition.NEVER,
    K.UNSUPPORTED: Disposition.NEVER,
    K.TOO_LARGE: Disposition.NEVER,
    K.OVERLOADED: Disposition.ELSEWHERE,
    K.MODEL_ERROR: Disposition.ELSEWHERE,
    K.MODEL_TIMEOUT: Disposition.ELSEWHERE,
    K.NODE_UNREACHABLE: Disposition.ELSEWHERE,
    K.BROKEN_STREAM: Disposition.ELSEWHERE,
    K.INVALID_OUTPUT: Disposition.ANYWHERE,
    K.UNCLAIMED: Disposition.ANYWHERE,
    K.LEASE_EXPIRED: Disposition.ELSEWHERE,
    K.NODE_LOST: Disposition.ELSEWHERE,
    K.NO_NODE: Disposition.NEVER,
    K.DEADLINE: Disposition.NEVER,
    K.CANCELLED: Disposition.NEVER,
    K.LIMIT: Disposition.NEVER,
    K.GATE_FAILED: Disposition.NEVER,
    K.NON_DETERMINISTIC_PATTERN: Disposition.NEVER,
    K.INTERNAL: Disposition.ELSEWHERE,
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts and full-jitter exponential backoff (Brooker, "Exponential Backoff And Jitter", 2015)."""

    attempts: int = 3
    base_seconds: float = 0.5
    cap_seconds: float = 30.0

    def delay_seconds(self, attempt: int, random_unit: float) -> float:
        """Wait after failed `attempt` (1, 2, ...), uniform in [0, min(cap, base * 2^(attempt-1))) by `random_unit` in [0, 1)."""
        assert attempt >= 1
        return random_unit * min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 32))


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay_seconds`; `elsewhere`: avoid the node that failed."""

    delay_seconds: float
    elsewhere: bool


def decide(kind: FailureKind, attempt: int, policy: RetryPolicy, random_unit: float) -> Retry | None:
    """What follows when `attempt` failed: another one, or None when the step has failed for good."""
    disposition = DISPOSITION[kind]
    if disposition is Disposition.NEVER or attempt >= policy.attempts:
        return None
    return Retry(policy.delay_seconds(attempt, random_unit), disposition is Disposition.ELSEWHERE)
