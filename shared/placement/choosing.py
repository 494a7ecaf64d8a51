"""Placement: what one who places steps knows of the nodes, and the choice it makes of it. Pure; time is passed in (monotonic seconds).

The filters' work is kept per demand until a node appears, changes or is lost, so that a choice costs what its scoring costs.

Choice: which node gets a step. Pure: facts in, decision and its reason out.

Among the nodes that pass the filters and have a place: the least predicted completion
    tokens ahead / measured speed of the node + load time if the model is not resident + prefill + decode of the step itself.
Full scoring, breakers and forecasts come later behind the same interface.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from shared.contracts.chat import Operation
from shared.contracts.step import Step
from shared.placement.demand import MOST_TOKENS, Demand, demand_of
from shared.placement.filters import Candidate, NodeView, Unplaceable, candidates
from shared.placement.ledger import CreditLedger, NodeCredit
from shared.processing.node_table import NodeTable


class Chosen(NamedTuple):
    """`model` is spelled as the node spells it. `why` is for people."""

    node: str
    model: str
    why: str
    seconds: float
    """Predicted, from now to the end."""
    account: NodeCredit
    resident: bool
    """The node has the model loaded, as its newest credits say."""


@dataclass(frozen=True, slots=True)
class Busy:
    """`candidates` (node, model) pairs could run it, none has a place for this party."""

    candidates: int


Choice = Chosen | Busy | Unplaceable


def choose(step: Step, nodes: Sequence[NodeView], now: float) -> Choice:
    """The node for `step` among the live `nodes` at `now` (monotonic seconds; nothing depends on it yet)."""
    found = candidates(demand_of(step), nodes)
    return found if isinstance(found, Unplaceable) else best(found, step)


def best(found: Sequence[Candidate], step: Step) -> Chosen | Busy:
    """The candidate with a place that is predicted to be done first; equals are told apart by free places, then by name."""
    prompt, output = _split(step)
    chosen: Candidate | None = None
    least = inf
    for candidate in found:
        if candidate.account.available > 0:
            seconds = _seconds(candidate, prompt, output)
            if chosen is None or seconds < least or (seconds == least and _rank(candidate) < _rank(chosen)):
                chosen, least = candidate, seconds
    if chosen is None:
        return Busy(len(found))
    return Chosen(chosen.node, chosen.model, _why(chosen, least, len(found)), least, chosen.account, chosen.resident)


def _rank(candidate: Candidate) -> tuple[int, str, str]:
    """Between equals the emptier node; then by name, so that the choice does not depend on the order of the nodes."""
    return -candidate.account.available, candidate.node, candidate.model


def _split(step: Step) -> tuple[int, int]:
    """Estimated (prompt, output) tokens. An embedding has no output to decode."""
    total = min(MOST_TOKENS, step.estimated_tokens)
    if step.operation is Operation.EMBED:
        return total, 0
    output = min(total, step.options.max_tokens or total // 2)
    return total - output, output


def _seconds(candidate: Candidate, prompt: int, output: int) -> float:
    account = candidate.account
    ahead = min(MOST_TOKENS, account.queued_tokens + account.own_tokens)
    seconds = ahead / (account.decode_tokens_per_second or candidate.decode * candidate.slots) if ahead else 0.0
    if not candidate.resident:
        seconds += candidate.load_seconds
    return seconds + prompt / candidate.prefill + output / candidate.decode


def _why(candidate: Candidate, seconds: float, count: int) -> str:
    account = candidate.account
    load = "resident" if candidate.resident else f"load {candidate.load_seconds:.1f} s"
    return f"{seconds:.2f} s predicted, least of {count}; {account.tokens_ahead} tokens ahead; {load}"


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

    def choose(self, step: Step, demand: Demand) -> Choice:
        """The node for one step of this demand. Uses nothing up."""
        found = self.candidates(demand)
        return found if isinstance(found, Unplaceable) else best(found, step)

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
