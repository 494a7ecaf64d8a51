"""What a model call consumed and how long it took."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt

from shared.contracts.base import Contract


class Usage(Contract):
    """Sums over calls. `estimated` marks counts that the node did not report."""

    calls: NonNegativeInt = 0
    prompt_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt = 0
    cost: NonNegativeFloat = 0.0
    wasted_calls: NonNegativeInt = 0
    wasted_tokens: NonNegativeInt = 0
    estimated: bool = False

    def plus(self, other: Usage) -> Usage:
        """Field-wise sum."""
        if not (self.calls or self.prompt_tokens or self.completion_tokens or self.wasted_calls or self.cost or self.wasted_tokens):
            # The first call of most jobs: nothing to add to.
            return other if other.estimated or not self.estimated else other.model_copy(update={"estimated": True})
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=self.cost + other.cost,
            wasted_calls=self.wasted_calls + other.wasted_calls,
            wasted_tokens=self.wasted_tokens + other.wasted_tokens,
            estimated=self.estimated or other.estimated,
        )

    def as_waste(self) -> Usage:
        """The same consumption, counted as wasted work; its cost stays."""
        return Usage(
            wasted_calls=self.calls + self.wasted_calls,
            wasted_tokens=self.prompt_tokens + self.completion_tokens + self.wasted_tokens,
            cost=self.cost,
            estimated=self.estimated,
        )


class Timings(Contract):
    """Of one attempt, measured by its worker's monotonic clock, milliseconds."""

    queue_ms: NonNegativeFloat = 0.0
    load_ms: NonNegativeFloat = 0.0
    prefill_ms: NonNegativeFloat = 0.0
    decode_ms: NonNegativeFloat = 0.0
    first_token_ms: NonNegativeFloat | None = None
    total_ms: NonNegativeFloat = 0.0
