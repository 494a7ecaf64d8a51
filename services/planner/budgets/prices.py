"""Prices: what calls of a model have cost, learned from outcomes, to estimate what the next one may cost. No I/O.

Only workers know prices. Until the first outcome of a model the estimate is nothing: a cost limit then holds from that outcome on.
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil

from shared.contracts.base import at_most
from shared.contracts.usage import Usage

_MODELS = 256
MICROS = 1_000_000
"""Costs are reserved as whole millionths of the cluster's currency: their sums are exact."""


def micros(cost: float) -> int:
    """A cost in millionths, rounded up; at most the largest count."""
    return at_most(ceil(round(cost * MICROS, 3))) if cost else 0


class Prices:
    """The highest price a token seen of each requested model; bounded, the longest unused leaves first."""

    def __init__(self) -> None:
        self._per_token: OrderedDict[str, float] = OrderedDict()

    def learn(self, model: str, usage: Usage) -> None:
        """An outcome of a step that asked for `model`."""
        tokens = usage.prompt_tokens + usage.completion_tokens
        if not usage.cost or not tokens:
            return
        self._per_token[model] = max(usage.cost / tokens, self._per_token.get(model, 0.0))
        self._per_token.move_to_end(model)
        if len(self._per_token) > _MODELS:
            self._per_token.popitem(last=False)

    def estimate_micros(self, model: str, tokens: int) -> int:
        """What a step of so many tokens may cost; 0 where no price is known."""
        return micros(self._per_token.get(model, 0.0) * tokens)
