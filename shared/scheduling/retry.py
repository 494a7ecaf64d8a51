"""What follows from a failure: a pure policy. No I/O, no waiting; randomness is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from shared.contracts.failure import FailureKind

K = FailureKind


class Disposition(Enum):
    """Whether another attempt makes sense, and where."""

    NEVER = "never"
    ELSEWHERE = "elsewhere"
    """On another node when there is one."""
    ANYWHERE = "anywhere"


DISPOSITION: dict[FailureKind, Disposition] = {
    K.INVALID_JOB: Disposition.NEVER,  # the same words are wrong again
    K.CONFLICT: Disposition.NEVER,  # the id is another request's for as long as it is remembered
    K.UNKNOWN_PATTERN: Disposition.NEVER,  # a newer planner may know it: the caller decides
    K.UNKNOWN_MODEL: Disposition.ELSEWHERE,  # this node has lost the model, another may have it
    K.BAD_REQUEST: Disposition.NEVER,  # every endpoint would refuse these parameters
    K.UNSUPPORTED: Disposition.NEVER,  # as above
    K.TOO_LARGE: Disposition.NEVER,  # it does not shrink
    K.BLOB_GONE: Disposition.NEVER,  # nobody has it any longer
    K.CONTEXT_LENGTH: Disposition.ELSEWHERE,  # this node's window is too small: one with a larger window may be there
    K.OVERLOADED: Disposition.ELSEWHERE,  # the node is full at present
    K.MODEL_ERROR: Disposition.ELSEWHERE,  # the endpoint failed: 5xx, an error inside a stream
    K.MODEL_TIMEOUT: Disposition.ELSEWHERE,  # this node is too slow or hangs
    K.NODE_UNREACHABLE: Disposition.ELSEWHERE,  # nothing was begun
    K.BROKEN_STREAM: Disposition.ELSEWHERE,  # the connection broke in the middle
    K.INVALID_OUTPUT: Disposition.ANYWHERE,  # models are random: the same node may do better
    K.UNCLAIMED: Disposition.ANYWHERE,  # nobody took it; nothing is known against the node
    K.LEASE_EXPIRED: Disposition.ELSEWHERE,  # the worker is gone or cut off
    K.NODE_LOST: Disposition.ELSEWHERE,  # as above
    K.NO_NODE: Disposition.NEVER,  # routers have waited for one for the whole limit
    K.DEADLINE: Disposition.NEVER,  # the answer is worthless by now
    K.CANCELLED: Disposition.NEVER,  # nobody wants it
    K.LIMIT: Disposition.NEVER,  # more attempts would cost more
    K.GATE_FAILED: Disposition.NEVER,  # the gate has its own repairs
    K.BLOCKED: Disposition.NEVER,  # the tenant's policy has spoken
    K.UNCHECKED: Disposition.NEVER,  # a critic was awaited as long as it may be
    K.NON_DETERMINISTIC_PATTERN: Disposition.NEVER,  # a defect: it would only repeat
    K.INTERNAL: Disposition.ELSEWHERE,  # a defect: perhaps of one process
}
"""For every kind, and why. How often and after how long: `RetryPolicy`; with what delay an endpoint asked for: the failure itself."""


NOT_BEGUN = frozenset({K.UNCLAIMED, K.UNKNOWN_MODEL, K.CONTEXT_LENGTH, K.OVERLOADED, K.NODE_UNREACHABLE})
"""Of those that are tried again: nobody has begun. After any other a step that may not be done twice may have been done."""
MAY_HAVE_BEGUN = "it may have begun, and must not be done twice"


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


class _Retry(NamedTuple):
    """Try again after `delay_seconds`; `elsewhere`: avoid the node that failed."""

    delay_seconds: float
    elsewhere: bool


def decide(kind: FailureKind, attempt: int, policy: RetryPolicy, random_unit: float) -> _Retry | None:
    """What follows when `attempt` failed: another one, or None when the step has failed for good."""
    disposition = DISPOSITION[kind]
    if disposition is Disposition.NEVER or attempt >= policy.attempts:
        return None
    return _Retry(policy.delay_seconds(attempt, random_unit), disposition is Disposition.ELSEWHERE)
