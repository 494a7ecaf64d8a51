"""What a model call consumed and how long it took."""

from __future__ import annotations

from pydantic import ConfigDict

from shared.contracts.base import MOST_COST, Contract, Cost, Count, Milliseconds, at_most


class Price(Contract):
    """What a million tokens cost, in the cluster's currency."""

    model_config = ConfigDict(extra="forbid")

    prompt_per_million: Cost = 0.0
    completion_per_million: Cost = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of one call."""
        return min((prompt_tokens * self.prompt_per_million + completion_tokens * self.completion_per_million) / 1e6, MOST_COST)


class Usage(Contract):
    """Sums over calls, which stay at the largest count or cost. `estimated` marks counts that the node did not report."""

    calls: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cost: Cost = 0.0
    wasted_calls: Count = 0
    wasted_tokens: Count = 0
    cut_off_tokens: Count = 0
    """Of the wasted ones: what attempts had used that the caller's own cancel, deadline or limit cut off. They are the caller's."""
    estimated: bool = False

    def plus(self, other: Usage) -> Usage:
        """Field-wise sum."""
        if not (self.calls or self.prompt_tokens or self.completion_tokens or self.wasted_calls or self.cost or self.wasted_tokens):
            # The first call of most jobs: nothing to add to.
            return other if other.estimated or not self.estimated else other.model_copy(update={"estimated": True})
        return Usage(
            calls=at_most(self.calls + other.calls),
            prompt_tokens=at_most(self.prompt_tokens + other.prompt_tokens),
            completion_tokens=at_most(self.completion_tokens + other.completion_tokens),
            cost=min(self.cost + other.cost, MOST_COST),
            wasted_calls=at_most(self.wasted_calls + other.wasted_calls),
            wasted_tokens=at_most(self.wasted_tokens + other.wasted_tokens),
            cut_off_tokens=at_most(self.cut_off_tokens + other.cut_off_tokens),
            estimated=self.estimated or other.estimated,
        )

    @property
    def callers_tokens(self) -> int:
        """What its caller pays: all but what the cluster wasted, by retries and lost claims."""
        return self.prompt_tokens + self.completion_tokens + self.cut_off_tokens

    def as_waste(self, *, cut_off: bool = False) -> Usage:
        """The same consumption, counted as wasted work; its cost stays. `cut_off`: by the caller."""
        wasted = self.prompt_tokens + self.completion_tokens + self.wasted_tokens
        return Usage(
            wasted_calls=at_most(self.calls + self.wasted_calls),
            wasted_tokens=at_most(wasted),
            cut_off_tokens=at_most(wasted) if cut_off else self.cut_off_tokens,
            cost=self.cost,
            estimated=self.estimated,
        )


class Timings(Contract):
    """Of one attempt, measured by its worker's monotonic clock, milliseconds."""

    queue_ms: Milliseconds = 0.0
    load_ms: Milliseconds = 0.0
    prefill_ms: Milliseconds = 0.0
    decode_ms: Milliseconds = 0.0
    first_token_ms: Milliseconds | None = None
    total_ms: Milliseconds = 0.0
