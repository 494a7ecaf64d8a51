"""How many calls run at once, between two bounds: the number at which most tokens a second are written, found by trying. Pure.

While every slot is wanted no other number is ever seen by itself, so now and then one more or one less is tried, for some calls; the better
one stays (additive). What fails for want of room halves it (multiplicative). What is learned of a number fades with the calls that end at
it. Where calls tell no speed (embeddings, tools, short answers) there is nothing to compare: it grows until one fails so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.worker.attempt import Attempt
from services.worker.speeds import FEWEST_TOKENS
from shared.contracts.chat import MODEL_CALLS
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded

WEIGHT = 0.2
"""Of the newest call."""
BETTER = 1.02
"""Times as much must be written for another number to stay."""
TRIED_CALLS, MOST_CALLS = 4, 40
"""Besides the number itself, that have to end at it; and that may end, at whatever number, until then."""
REST_CALLS, LONGEST_REST = 20, 640
"""Between two trials; doubled by each pair that finds nothing better."""
HALVED_SECONDS = 10.0
"""Calls that began together fail together: for them it is halved once."""
MUTE_CALLS = 20
"""In a row, for each of its slots, that tell no speed while all are taken: then one more is used."""
_HALVES = frozenset({FailureKind.OVERLOADED, FailureKind.MODEL_TIMEOUT, FailureKind.NODE_UNREACHABLE})
"""Not what one request can bring about: it would slow all others."""
_NEAR = 0.25
_MOST_MODELS = 64


@dataclass(slots=True)
class _Seen:
    seconds: float = 0.0
    """A token, of each call."""
    calls: int = 0
    """Since the last trial began."""


@dataclass(slots=True)
class Concurrency:
    """`limit`: how many may run now. It begins at the least; the first trials follow one another."""

    least: int
    most: int
    limit: int = 0
    _base: int = 0
    _direction: int = 1
    _failed: int = 2
    """Trials since one was better; after two, one in each direction, the rest grows."""
    _ended: int = 0
    """Calls since the trial, or the rest, began."""
    _rest: int = TRIED_CALLS
    _mute: int = 0
    """Calls in a row that told no speed."""
    _halved_at: float = float("-inf")
    _seen: dict[str, dict[int, _Seen]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.limit = self._base = self.least

    def ended(self, attempt: Attempt, outcome: StepSucceeded | StepFailed | StepReleased, beside: float, now: float) -> int:
        """How many may run from now on. `beside`: calls that ran on average while this one did, itself included."""
        if isinstance(outcome, StepSucceeded):
            self.succeeded(attempt.model or "", outcome.usage.completion_tokens, outcome.timings.decode_ms / 1e3, beside)
        elif isinstance(outcome, StepFailed) and outcome.failure.kind in _HALVES and attempt.step.operation in MODEL_CALLS:
            self.failed(now)
        return self.limit

    def failed(self, now: float) -> None:
        """A call failed, or took too long, and its request is not to blame. `now`: monotonic seconds."""
        if now - self._halved_at >= HALVED_SECONDS:
            self._halved_at = now
            self._begin(max(self.least, self._base // 2))
            self._learn_anew()
            self._direction, self._failed, self._rest = 1, 0, REST_CALLS

    def succeeded(self, model: str, tokens: int, seconds: float, beside: float) -> None:
        """A call wrote so many tokens in `seconds`, while `beside` ran on average, itself included."""
        self._ended += 1
        number = round(beside)
        if tokens < FEWEST_TOKENS or seconds <= 0 or (model not in self._seen and len(self._seen) >= _MOST_MODELS):
            self._mute += number >= self.limit
            if self._mute >= MUTE_CALLS * self.limit:
                self._begin(min(self.most, self.limit + 1))
            return
        self._mute = 0
        if abs(beside - number) > _NEAR:
            return
        seen = self._seen.setdefault(model, {}).setdefault(min(number, self.most), _Seen())
        weight = max(WEIGHT, 1.0 / (seen.calls + 1)) if seen.calls < TRIED_CALLS else WEIGHT
        seen.seconds += (seconds / tokens - seen.seconds) * (weight if seen.seconds else 1.0)
        seen.calls += 1
        self._look(model)

    def _look(self, model: str) -> None:
        trying = self.limit != self._base
        done = self._calls(model, self.limit) >= self.limit + TRIED_CALLS
        if trying and (done or self._ended >= self.limit * MOST_CALLS):
            better = done and self._written(model, self.limit) > BETTER * self._written(model, self._base)
            self._judged(better)
        elif not trying and done and self._ended >= self._rest:
            self._try()

    def _judged(self, better: bool) -> None:
        if better:
            self._base, self._failed, self._rest = self.limit, 0, 0
        else:
            self._direction, self._failed = -self._direction, self._failed + 1
            if self._failed >= 2:
                self._rest = min(LONGEST_REST, max(REST_CALLS, 2 * self._rest))
        self._begin(self._base)

    def _try(self) -> None:
        if not self.least <= self._base + self._direction <= self.most:
            self._direction, self._failed = -self._direction, self._failed + 1
        if self.least <= self._base + self._direction <= self.most:
            self._begin(self._base, self._base + self._direction)
            self._learn_anew()

    def _begin(self, base: int, limit: int | None = None) -> None:
        """To run at `base`, or to try another number."""
        self._base, self.limit, self._ended, self._mute = base, limit or base, 0, 0

    def _learn_anew(self) -> None:
        for of_model in self._seen.values():
            if self.limit in of_model:
                of_model[self.limit].calls = 0

    def _calls(self, model: str, number: int) -> int:
        seen = self._seen.get(model, {}).get(number)
        return 0 if seen is None else seen.calls

    def _written(self, model: str, number: int) -> float:
        """Tokens a second, of all together; 0: never seen."""
        seen = self._seen.get(model, {}).get(number)
        return number / seen.seconds if seen is not None and seen.seconds > 0 else 0.0
