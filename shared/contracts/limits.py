"""Bounds of one job. What a job leaves out is filled from the planner's settings when it is accepted."""

from __future__ import annotations

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from shared.contracts.base import Contract


class Limits(Contract):
    """Reserved before dispatch, settled after. At a limit the job ends with its best answer so far or a typed failure."""

    model_config = ConfigDict(extra="forbid")

    calls: PositiveInt | None = Field(default=None, le=10_000)
    tokens: PositiveInt | None = None
    cost: NonNegativeFloat | None = None
    wall_seconds: PositiveFloat | None = None
    steps: PositiveInt | None = Field(default=None, le=10_000)
    depth: PositiveInt | None = Field(default=None, le=32)
    """How deep gathers may lie in one another."""
    width: PositiveInt | None = Field(default=None, le=1_000)
    """Steps open at once."""
    attempts: PositiveInt | None = Field(default=None, le=20)
    soft: float | None = Field(default=None, gt=0, le=1)
    """Fraction of calls, tokens, cost, wall time and steps from which on the history warns, once a limit; 0.8 when left out."""
