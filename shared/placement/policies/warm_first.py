"""Warm first: a node that has the model in memory before any other, then the one with the fewest steps."""

from __future__ import annotations

from collections.abc import Sequence

from shared.placement.filters import Candidate
from shared.placement.policies.port import Foreseen, Moment, PlaceRequest, foresee

COLD = 1_000_000.0
"""More than any node has steps."""


def pick(found: Sequence[Candidate], ask: PlaceRequest, moment: Moment) -> list[Foreseen]:
    """Those with a place."""
    return [
        foresee(c, ask, moment)._replace(cost=c.account.active + (0.0 if c.resident else COLD)) for c in found if c.account.available > 0
    ]
