"""Measured speeds of each model on this node: exponentially weighted averages. Pure.

When a running call has taken too long: before its first token, between tokens, in total, beyond the user's deadline. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from services.worker.attempt import Attempt
from services.worker.backends.base import Completion
from services.worker.seen import LOAD_MS
from services.worker.settings import WorkerSettings
from shared.contracts.failure import Failure, clocks_differ
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import MOST_SLOWDOWN, NodeModel
from shared.scheduling.line import Line


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


WEIGHT = 0.2
"""Of the newest observation."""
FEWEST_TOKENS = 8
"""Shorter answers, and prompts, say more about overhead than about speed."""
MOST_MODELS = 256
FASTEST = 1e9
"""Of what endpoints report, in tokens a second: what a message can say."""


@dataclass(slots=True)
class _Speed:
    prefill: Line = field(default_factory=partial(Line, proportional=True))
    """Seconds by tokens of the prompt."""
    decode: Line = field(default_factory=partial(Line, proportional=False))
    """Seconds a token by calls that run beside it."""
    load: float | None = None


class Speeds:
    """Tokens per second and load seconds by model, and the node's decode speed over all slots."""

    def __init__(self) -> None:
        self._models: dict[str, _Speed] = {}
        self.node_decode = 0.0
        """Decode tokens per second of all slots together; 0 until measured."""

    def observe(self, model: str, done: Completion, running: float) -> None:
        """A call ended while `running` calls ran on average, itself included."""
        speed = self._models.get(model)
        if speed is None:
            if len(self._models) >= MOST_MODELS:
                return
            speed = self._models[model] = _Speed()
        timings, usage = done.timings, done.usage
        if timings.load_ms > LOAD_MS:
            speed.load = _average(speed.load, timings.load_ms / 1e3)
        read = done.prefilled_tokens if done.prefilled_tokens is not None else usage.prompt_tokens
        if read >= FEWEST_TOKENS and timings.prefill_ms > 0:
            speed.prefill.observe(read, max(timings.prefill_ms / 1e3, read / FASTEST))
        if usage.completion_tokens >= FEWEST_TOKENS and timings.decode_ms > 0:
            seconds = max(timings.decode_ms / 1e3 / usage.completion_tokens, 1.0 / FASTEST)
            speed.decode.observe(max(0.0, running - 1.0), seconds)
            self.node_decode = _average(self.node_decode or None, min(running / seconds, FASTEST))

    def attach(self, model: NodeModel) -> NodeModel:
        """The model with what was measured of it."""
        speed = self._models.get(model.name)
        if speed is None:
            return model
        read, written = speed.prefill, speed.decode
        return model.model_copy(
            update={
                "prefill_tokens_per_second": min(1.0 / read.each, FASTEST) if read.each else None,
                "prefill_fixed_seconds": read.fixed if read.seen else None,
                "decode_tokens_per_second": min(1.0 / written.fixed, FASTEST) if written.fixed else None,
                "decode_slowdown": min(written.each / written.fixed, MOST_SLOWDOWN) if written.fixed else None,
                "load_seconds": speed.load,
            }
        )

    def seconds(self, model: str, prompt: int, output: float, running: float) -> float | None:
        """What a call of a resident model takes while so many run, itself included; None where it was never seen."""
        speed = self._models.get(model)
        if speed is None or not speed.decode.seen:
            return None
        return speed.prefill.at(prompt) + output * speed.decode.at(max(0.0, running - 1.0))


def _average(before: float | None, now: float) -> float:
    now = min(now, FASTEST)
    return now if before is None else before + WEIGHT * (now - before)
