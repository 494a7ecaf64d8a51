"""Comparison: a job's answer judged beside the answer of a simpler way, its baseline. What `tutti patterns report` counts."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from shared.contracts.base import Contract, EpochSeconds, JobId, Label, ModelName, Quantity
from shared.contracts.usage import Usage

COMPARED_CHARACTERS = 8_000
"""Of one text: longer ones a judge would not read whole."""


class Spent(Contract):
    """What an answer took, wasted attempts included; a mean where several are as good. `seconds`: until it was there."""

    calls: Quantity = 0.0
    tokens: Quantity = 0.0
    cost: Quantity = 0.0
    seconds: Quantity = 0.0

    @classmethod
    def of(cls, usage: Usage, seconds: float, *, shares: int = 1) -> Self:
        """`shares`: so many answers took it together; the seconds are of each."""
        return cls(
            calls=(usage.calls + usage.wasted_calls) / shares,
            tokens=(usage.prompt_tokens + usage.completion_tokens + usage.wasted_tokens) / shares,
            cost=usage.cost / shares,
            seconds=max(0.0, seconds),
        )

    def times(self, other: Spent) -> float | None:
        """How much dearer this is than the other: by cost where both have one, else tokens, else calls; None where nothing is known."""
        for name in ("cost", "tokens", "calls"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine > 0 and its > 0:
                return min(float(mine / its), 1e15)
        return None

    def less(self, other: Spent) -> Self:
        """What was added since that."""
        return type(self)(**{name: max(0.0, mine - getattr(other, name)) for name, mine in self})


class Baseline(Contract):
    """The answer of a simpler way. `same`: its pattern can tell that it says what the answer says. Without `text` it is a single answer
    that is still to be asked for, of `model` where one is named.
    """

    what: Label
    """first sample, round-0 vote, best proposer, first draft, last model, single answer."""
    text: str | None = Field(default=None, max_length=COMPARED_CHARACTERS)
    took: Spent = Spent()
    same: bool = False
    model: ModelName | None = None


SINGLE_ANSWER = Baseline(what="single answer")


class Comparison(Contract):
    """What pattern `compare` answers, as JSON in its answer's text. `verdict`: of the measured job's answer."""

    job: JobId
    accepted_at: EpochSeconds
    pattern: Label
    baseline: Label
    verdict: Literal["better", "equal", "worse"]
    judge: Literal["not asked", "consistent", "prefers a place"] = "not asked"
    """Who prefers a place, whichever text stands there, makes it equal: of such a judge nothing is learnt."""
    cost_ratio: Quantity | None = None
    """The job's cost by the baseline's; absent where nothing is known of one."""
    seconds_ratio: Quantity | None = None
