"""Random of two: of two nodes drawn by the step's id the one with fewer steps (Mitzenmacher 2001)."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from shared.placement.filters import Candidate
from shared.placement.policies.port import Foreseen, Moment, PlaceRequest, foresee


def pick(found: Sequence[Candidate], ask: PlaceRequest, moment: Moment) -> list[Foreseen]:
    """The two that are drawn of those with a place."""
    seed = crc32(ask.key.encode())
    drawn = sorted((c for c in found if c.account.available > 0), key=lambda c: crc32(c.node.encode(), seed))[:2]
    return [foresee(c, ask, moment)._replace(cost=c.account.active) for c in drawn]
