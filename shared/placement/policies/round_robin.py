"""Round robin: the node that was given the fewest steps by this party so far."""

from __future__ import annotations

from collections.abc import Sequence

from shared.placement.filters import Candidate
from shared.placement.policies.port import Foreseen, Moment, PlaceRequest, foresee


def pick(found: Sequence[Candidate], ask: PlaceRequest, moment: Moment) -> list[Foreseen]:
    """Those with a place."""
    return [foresee(c, ask, moment)._replace(cost=c.account.given) for c in found if c.account.available > 0]
