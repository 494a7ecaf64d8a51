"""Placement: what one who places steps knows of the nodes, and the choice it makes of it. Pure; time is passed in (monotonic seconds).

The filters' work is kept per demand until a node appears, changes or is lost, so that a choice costs what its scoring costs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from math import exp, inf
from typing import NamedTuple

from shared.contracts.base import PriorityClass
from shared.contracts.chat import Operation
from shared.contracts.step import Step
from shared.estimates import ANSWER_TOKENS, likely_tokens
from shared.model_names import canonical
from shared.placement import why
from shared.placement.demand import MOST_TOKENS, Demand, demand_of
from shared.placement.filters import Candidate, NodeView, Unplaceable, candidates
from shared.placement.ledger import CreditLedger, NodeCredit
from shared.placement.policies import POLICIES
from shared.placement.policies.port import Foreseen, Moment, PlaceRequest
from shared.processing.node_table import NodeTable

_MOST_KEPT = 10_000
_KEPT_SECONDS = 300.0
"""As long as Ollama keeps an idle model."""
_FEWEST = 3
"""Messages: a question, an answer, and the next question."""
_HEAD = 512
"""Characters of a chat's first messages that tell it from others."""


class Chosen(NamedTuple):
    """`model` is spelled as the node spells it. Seconds are predicted, from now on."""

    node: str
    model: str
    first: float
    """To the first token."""
    seconds: float
    """To the end."""
    account: NodeCredit
    resident: bool
    """The node has the model loaded, as its newest credits say."""
    policy: str
    taken: Foreseen
    weighed: Sequence[Foreseen]
    found: int

    def why(self) -> bytes:
        """The explanation (`placement.why`)."""
        return why.explain(self.policy, self.taken, self.weighed, self.found)


class Held(NamedTuple):
    """It is to wait for a node that has no place now, no longer than `until` (monotonic seconds)."""

    node: str
    until: float


Choice = Chosen | Held | Unplaceable | None
"""None: some could run it, none of them has a place for this party."""


def ask_of(
    step: Step, *, now: float = 0.0, arrived_at: float = 0.0, until: float = inf, priority_class: PriorityClass | None = None
) -> PlaceRequest:
    """What policies look at of `step`, which has waited since `arrived_at`, in its own class where no other is given."""
    prompt, output = split(step)
    thread, cached = _thread_of(step) or (None, 0)
    return PlaceRequest(step.id, prompt, output, priority_class or step.priority_class, now - arrived_at, until, thread, cached=cached)


def split(step: Step) -> tuple[int, int]:
    """Estimated (prompt, output) tokens. An embedding has no output to decode."""
    total = min(MOST_TOKENS, step.estimated_tokens)
    if step.operation is Operation.EMBED:
        return total, 0
    allowed = min(total, step.options.max_tokens or ANSWER_TOKENS)
    likely = step.likely_output
    return total - allowed, allowed if likely is None else min(likely, step.options.max_tokens or likely)


def choose(step: Step, nodes: Sequence[NodeView], now: float, policy: str = "hybrid") -> Choice:
    """The node for `step` alone among the live `nodes` at `now` (monotonic seconds)."""
    found = candidates(demand_of(step), nodes)
    return found if isinstance(found, Unplaceable) else best(found, ask_of(step), Moment(now), policy)


def best(found: Sequence[Candidate], ask: PlaceRequest, moment: Moment, policy: str = "hybrid") -> Chosen | Held | None:
    """The candidate of the least cost; equals are told apart by free places, then by name."""
    weighed = POLICIES[policy](found, ask, moment)
    chosen: Foreseen | None = None
    least, soonest = inf, inf
    for seen in weighed:
        if seen.now and seen[0] < soonest:
            soonest = seen[0]
        if chosen is None or seen[0] < least or (seen[0] == least and _rank(seen) < _rank(chosen)):
            chosen, least = seen, seen[0]
    if chosen is None:
        return None
    candidate = chosen.candidate
    if not chosen.now:
        moment.reserved[candidate.node] = moment.reserved.get(candidate.node, 0) + 1
        moment.shared[candidate.model] = moment.shared.get(candidate.model, 0) + 1
        return Held(candidate.node, min(ask.until, moment.now + soonest))
    there = candidate.account, candidate.resident
    return Chosen(candidate.node, candidate.model, chosen.first, chosen.end, *there, policy, chosen, weighed, len(found))


def _rank(seen: Foreseen) -> tuple[int, str, str]:
    """Between equals the emptier node; then by name, so that the choice does not depend on the order of the nodes."""
    candidate = seen.candidate
    return -candidate.account.available, candidate.node, candidate.model


DEMANDS_KEPT = 4096
"""Bound of the memory of filters' work."""


HEAT_SECONDS = 60.0
MOST_MODELS = 4096


class _Heat:
    """How often each model was given a step of late, a second; what is long ago fades."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._at = 0.0

    def at(self, now: float) -> dict[str, float]:
        """By model, as nodes spell it."""
        if now > self._at:
            fade = exp(-(now - self._at) / HEAT_SECONDS)
            for model in self._rates:
                self._rates[model] *= fade
            self._at = now
        return self._rates

    def add(self, model: str) -> None:
        if model in self._rates or len(self._rates) < MOST_MODELS:
            self._rates[model] = self._rates.get(model, 0.0) + 1.0 / HEAT_SECONDS


def _thread_of(step: Step) -> tuple[int, int] | None:
    """(what its prompt begins with, tokens of it that an earlier call has read); None where nothing was read before."""
    if len(step.messages) < _FEWEST:
        return None
    head = tuple(message.content[:_HEAD] for message in step.messages[:2])
    return hash((step.tenant, step.model, head)), likely_tokens(sum(len(message.content) for message in step.messages[:-1]))


class _Affinity:
    """Which node has read most of a step's prompt already, by what was placed of late.

    Model servers keep what each slot has read. A chat whose client sends everything again begins with what its last call began with; the
    node that had that call reads only what is new. How surely it still does sinks with what it has besides: the more steps, the less that
    counts.
    """

    def __init__(self) -> None:
        self._nodes: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def note(self, key: int, node: str, now: float) -> None:
        """This node reads a prompt that begins so."""
        self._nodes.pop(key, None)
        self._nodes[key] = node, now
        if len(self._nodes) > _MOST_KEPT:
            self._nodes.popitem(last=False)

    def near(self, key: int, now: float) -> str | None:
        """The node that has read it last, if that was not long ago."""
        node, at = self._nodes.get(key, ("", 0.0))
        return node if node and now - at < _KEPT_SECONDS else None


class Placement:
    """Node table and ledger as one."""

    def __init__(self, table: NodeTable, ledger: CreditLedger, policy: str = "hybrid") -> None:
        self._policy = policy
        self.moment = Moment()
        self._heat, self._affinity = _Heat(), _Affinity()
        self._asked: tuple[set[str], frozenset[str], int] = (set(), frozenset(), -1)
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

    def choose(self, demand: Demand, ask: PlaceRequest) -> Choice:
        """The node for one step of this demand. Uses nothing up."""
        found = self.candidates(demand)
        if isinstance(found, Unplaceable):
            return found
        now = self.moment.now
        if ask.thread is not None:
            ask = ask._replace(near=self._affinity.near(ask.thread, now))
        choice = best(found, ask, self.moment, self._policy)
        if isinstance(choice, Chosen):
            self._heat.add(choice.model)
            if ask.thread is not None:
                self._affinity.note(ask.thread, choice.node, now)
        return choice

    def begin_round(self, now: float, waiting: Iterable[Demand] = ()) -> None:
        """Places may have come free since the last round. `waiting`: what steps wait for."""
        self._closed.clear()
        self.moment = Moment(now, self._models(waiting), self._heat.at(now))

    def _models(self, waiting: Iterable[Demand]) -> frozenset[str]:
        """As nodes spell them."""
        asked = {demand.model for demand in waiting}
        if asked == self._asked[0] and self._table_version == self._asked[2]:
            return self._asked[1]
        wanted = {canonical(model) for model in asked}
        spelled = frozenset(model.name for view in self.nodes() for model in view.node.models if canonical(model.name) in wanted)
        self._asked = (asked, spelled, self._table_version)
        return spelled

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
