"""Placement: what this router knows of the nodes, and the choice it makes of it. Pure; time is passed in (monotonic seconds).

The filters' work is kept per demand until a node appears, changes or is lost, so that a choice costs what its scoring costs.
"""

from __future__ import annotations

from collections.abc import Hashable

from services.router.choice import Choice, best
from services.router.demand import Demand
from services.router.entry import PendingStep
from services.router.filters import Candidate, NodeView, Unplaceable, candidates
from services.router.ledger import CreditLedger
from shared.processing.node_table import NodeTable

DEMANDS_KEPT = 4096
"""Bound of the memory of filters' work."""


class Placement:
    """Node table and ledger as one."""

    def __init__(self, table: NodeTable, ledger: CreditLedger) -> None:
        self.table = table
        self.ledger = ledger
        self._nodes: tuple[NodeView, ...] = ()
        self._table_version = -1
        self._found: dict[Hashable, tuple[Candidate, ...] | Unplaceable] = {}
        self._closed: set[Hashable] = set()

    def nodes(self) -> tuple[NodeView, ...]:
        """The live nodes: registered, and heard of with the same boot."""
        if self._table_version != self.table.version:
            self.refresh()
        return self._nodes

    def refresh(self) -> None:
        """A node has become live, lost or another: begin anew."""
        self._table_version = self.table.version
        views = []
        for node in self.table:
            account = self.ledger.get(node.id)
            if account is not None and account.live and account.boot == node.boot:
                views.append(NodeView(node, account))
        self._nodes = tuple(views)
        self._found.clear()
        self._closed.clear()

    def candidates(self, demand: Demand) -> tuple[Candidate, ...] | Unplaceable:
        """Who could run a step of this demand, busy or not."""
        if self._table_version != self.table.version:
            self.refresh()
        found = self._found.get(demand)
        if found is None:
            if len(self._found) >= DEMANDS_KEPT:
                self._found.clear()
            found = self._found[demand] = candidates(demand, self._nodes, self.table.known())
        return found

    def choose(self, entry: PendingStep) -> Choice:
        """The node for one step. Uses nothing up."""
        found = self.candidates(entry.lane)
        return found if isinstance(found, Unplaceable) else best(found, entry.step)

    def begin_round(self) -> None:
        """Places may have come free since the last round."""
        self._closed.clear()

    def open_lane(self, demand: Hashable) -> bool:
        """Whether a step of this demand could be given away now. Within a round a closed lane stays closed."""
        if demand in self._closed:
            return False
        assert isinstance(demand, Demand)
        found = self.candidates(demand)
        if not isinstance(found, Unplaceable):
            for candidate in found:
                if candidate.account.available > 0:
                    return True
        self._closed.add(demand)
        return False
