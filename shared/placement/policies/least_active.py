"""Least active: the node with the fewest steps, as most balancers do. Knows neither speeds nor loads."""

from __future__ import annotations

from collections.abc import Sequence

from shared.placement.filters import Candidate
from shared.placement.policies.port import Foreseen, Moment, PlaceRequest, foresee


def pick(found: Sequence[Candidate], ask: PlaceRequest, moment: Moment) -> list[Foreseen]:
    """Those with a place."""
    return [foresee(c, ask, moment)._replace(cost=c.account.active) for c in found if c.account.available > 0]
