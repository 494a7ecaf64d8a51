"""Lengths: how many tokens prompts have, by model, as a trend of bytes; and answers, by tenant, agent and model, as quantiles of what
was seen of late. Pure.

Counts by size, half an octave each, fading: a median costs a look at some thirty numbers. Who was never seen is taken for the agent's
other tenants, then for nothing known.
"""

from __future__ import annotations

from collections import OrderedDict
from math import exp2, log2

from shared.contracts.step import Length
from shared.estimates import likely_tokens
from shared.scheduling.trend import Trend

MOST_KEYS = 4_096
"""Whoever was seen longest ago is forgotten beyond that."""
MOST_MODELS = 512
"""Whose prompts were seen longest ago is forgotten beyond that."""
_MOST_OFF, _TEMPLATE_TOKENS = 2, 200
"""What was learned is believed as far as so many times more or less than usual, and what a template may add: a prompt that an endpoint
has cut says little, and what one tenant's prompts have taught holds for all."""
_SIZES = 40
"""Half octaves: up to a million tokens."""
FADES = 0.98
"""Of what was counted at each new answer: some fifty of the newest decide."""
_LARGEST = 1e9
"""Weight of the newest from which on all are weighed anew, so that no number grows for ever."""
FEWEST = 3.0
"""Of what is counted: fewer say nothing."""

Key = tuple[str, str, str]


class _Counts:
    """What is old does not fade, what is new counts more: only one size is touched."""

    __slots__ = ("_newest", "_sum", "enough", "sizes")

    def __init__(self) -> None:
        self.sizes = [0.0] * _SIZES
        self._sum, self._newest, self.enough = 0.0, 1.0, False

    def add(self, tokens: int) -> None:
        self._newest /= FADES
        self._sum += self._newest
        self.enough = self._sum >= FEWEST * self._newest
        self.sizes[min(_SIZES - 1, round(2 * log2(tokens + 1)))] += self._newest
        if self._newest > _LARGEST:
            self.sizes = [count / self._newest for count in self.sizes]
            self._sum, self._newest = self._sum / self._newest, 1.0

    def quantile(self, share: float) -> int:
        left = self._sum * share
        for size, count in enumerate(self.sizes):
            left -= count
            if left <= 0:
                return max(1, round(exp2(size / 2)) - 1)
        return int(exp2(_SIZES / 2))


class PromptLengths:
    """What the models' tokenizers have made of prompts: none is read, since every finished call tells what came of its bytes. Of one
    process. Two trends a model, of plain ASCII and of all else: Chinese has other bytes a token than English; code is near to that.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, bool], Trend] = OrderedDict()

    def learn(self, model: str, length: Length, tokens: int) -> None:
        """A prompt had so many tokens."""
        key = model, length.characters == length.size
        trend = self._seen.pop(key, None) or Trend(proportional=True)
        trend.observe(length.size, tokens)
        self._seen[key] = trend
        if len(self._seen) > MOST_MODELS:
            self._seen.popitem(last=False)

    def likely(self, model: str, length: Length) -> int:
        """Of a prompt, its template included; by its bytes alone where too little was seen."""
        trend, plain = self._seen.get((model, length.characters == length.size)), likely_tokens(length.size) + 1
        if trend is None or trend.seen < FEWEST:
            return plain
        return min(max(round(trend.at(length.size)), plain // _MOST_OFF), plain * _MOST_OFF + _TEMPLATE_TOKENS)


class AnswerLengths:
    """What answers have been like. Of one process."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Key, _Counts] = OrderedDict()

    def learn(self, tenant: str, agent: str, model: str, tokens: int) -> None:
        """An answer had so many tokens."""
        for key in ((tenant, agent, model), ("", agent, model)):
            counts = self._seen.pop(key, None) or _Counts()
            counts.add(tokens)
            self._seen[key] = counts
        while len(self._seen) > MOST_KEYS:
            self._seen.popitem(last=False)

    def likely(self, tenant: str, agent: str, model: str, share: float = 0.5) -> int | None:
        """So many or fewer tokens has this share of answers; None where too little was seen."""
        for key in ((tenant, agent, model), ("", agent, model)):
            counts = self._seen.get(key)
            if counts is not None and counts.enough:
                return counts.quantile(share)
        return None
