"""Bid: a market. Each node with a place asks what the step's time there is worth: its seconds, times a price that rises with how full
the node is. So fast nodes are kept for those who find nothing else when work is scarce, and cheap ones fill first.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.placement.filters import Candidate
from shared.placement.policies.port import Foreseen, Moment, PlaceRequest, foresee


def pick(found: Sequence[Candidate], ask: PlaceRequest, moment: Moment) -> list[Foreseen]:
    """Those with a place."""
    weighed = []
    for candidate in found:
        if candidate.account.available > 0:
            seen = foresee(candidate, ask, moment)
            price = 1.0 + candidate.account.active / candidate.slots
            weighed.append(seen._replace(cost=seen.end * price))
    return weighed
