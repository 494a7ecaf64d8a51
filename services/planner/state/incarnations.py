"""Which boot of each node is the newest that has told this home of itself. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections import OrderedDict

from shared.contracts.base import ClaimId, NodeId
from shared.contracts.outcome import incarnation_of
from shared.processing.node_table import MOST_NODES

_REMEMBERED_SECONDS = 300.0
"""Far above the time in which an earlier boot that wakes learns of the later one. `nodes` may be made anew, and its offsets begin again."""


class Incarnations:
    """In memory only: where it is forgotten, the lease ends what an earlier boot claims."""

    def __init__(self) -> None:
        self._newest: OrderedDict[NodeId, tuple[int, float]] = OrderedDict()

    def started(self, node: NodeId, incarnation: int, now: float) -> bool:
        """A boot says that it goes on; false of one that an older record tells of."""
        if incarnation < self._of(node, now):
            return False
        self._newest[node] = (incarnation, now)
        self._newest.move_to_end(node)
        if len(self._newest) > MOST_NODES:
            self._newest.popitem(last=False)
        return True

    def superseded(self, node: NodeId, claim: ClaimId, now: float) -> bool:
        """Whether a later boot than this claim's has told of itself."""
        return bool(self._newest) and incarnation_of(claim) < self._of(node, now)

    def _of(self, node: NodeId, now: float) -> int:
        incarnation, at = self._newest.get(node, (-1, now))
        return incarnation if now - at < _REMEMBERED_SECONDS else -1
