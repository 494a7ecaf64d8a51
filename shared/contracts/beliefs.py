"""Beliefs: what judges have said of models' answers, as one home has counted it. An entry of the registry (`beliefs/<home>`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.contracts.agents import Belief, QueryKind
from shared.contracts.base import Contract, EpochSeconds, ModelName, Offset

KIND = "beliefs"
"""Of the entries."""
FORGOTTEN = "forgotten"
"""Name of the entry by which all that was counted before it is forgotten; with `:` and a model behind it, of that model."""
MOST_MODELS = 64
"""Of one home."""


class HomeBeliefs(Contract):
    """By full name of the model and kind of what was asked. Counts, and no word of what was asked or answered, nor whose it was.

    `through`: offset of the newest settle event of the home that is counted in it: the same is never counted again.
    """

    through: Offset
    models: dict[ModelName, Annotated[dict[QueryKind, Belief], Field(max_length=8)]] = Field(default={}, max_length=MOST_MODELS)


class Forgotten(Contract):
    """Somebody wants what was learned to be forgotten."""

    at: EpochSeconds
