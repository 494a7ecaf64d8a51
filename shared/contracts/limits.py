"""Bounds of one job. What a job leaves out is filled from the planner's settings when it is accepted."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from shared.contracts.base import Contract, Cost, Ordinal, PositiveSeconds, PriorityClass

DEADLINE_SECONDS = {PriorityClass.INTERACTIVE: 120.0, PriorityClass.STANDARD: 3_600.0, PriorityClass.BATCH: 86_400.0}
"""Of a job, and of a caller, that names none."""


class Limits(Contract):
    """Reserved before dispatch, settled after. At a limit the job ends with its best answer so far or a typed failure."""

    model_config = ConfigDict(extra="forbid")

    calls: Ordinal | None = Field(default=None, le=10_000)
    tokens: Ordinal | None = None
    cost: Cost | None = None
    wall_seconds: PositiveSeconds | None = None
    steps: Ordinal | None = Field(default=None, le=10_000)
    depth: Ordinal | None = Field(default=None, le=32)
    """How deep gathers may lie in one another."""
    width: Ordinal | None = Field(default=None, le=1_000)
    """Steps open at once."""
    attempts: Ordinal | None = Field(default=None, le=20)
    soft: float | None = Field(default=None, gt=0, le=1)
    """Fraction of calls, tokens, cost, wall time and steps from which on the history warns, once a limit; 0.8 when left out."""
