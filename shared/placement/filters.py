"""Filters: which live nodes can run a step at all, and what is missing when none can. Pure. Being busy is not a filter, nor is a pause;
that its calls fail (an open breaker) is one: then its fallbacks count, and a step without any waits as one without a node does.

Residency is not one either: a model that must be loaded first costs time, it excludes nothing. What no registered node could do, be it
away or asleep, is refused at once: no waiting makes a window longer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from shared.contracts.agents import RatedModel, Readiness
from shared.contracts.chat import Operation
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.node import Node, NodeModel
from shared.model_names import AUTO, canonical
from shared.placement.demand import Demand
from shared.placement.ledger import NodeCredit
from shared.placement.prior import Prior, load_seconds, prior_speeds

UNKNOWN = Prior(200.0, 20.0, 1.0)
"""Tokens per second of a model that was never measured: a small machine."""
ASSUMED_MODELS = 3
"""In memory at once: Ollama's default for each GPU."""
_MOST_BYTES = 10**18


@dataclass(frozen=True)
class NodeView:
    """A live node: what it registered, and its account, whose numbers move between choices."""

    node: Node
    account: NodeCredit

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of its models, by name."""
        return {model.name: model.size_bytes for model in self.node.models}


class Candidate:
    """A node and the model of it that would run the step. `load_seconds` counts when the model is not resident."""

    __slots__ = (
        "_sizes", "account", "avoided", "decode", "load_seconds", "memory_bytes", "model", "most_models", "node", "prefill", "read_fixed",
        "registered_resident", "room", "slots", "slowdown",
    )  # fmt: skip

    def __init__(self, view: NodeView, model: NodeModel, *, load_seconds: float, avoided: bool) -> None:
        node = view.node
        self.node = node.id
        self.account = view.account
        self.slots = node.slots
        self.model = model.name
        prior = prior_speeds(node.hardware, model) if model.size_bytes else UNKNOWN
        self.prefill = model.prefill_tokens_per_second or prior.prefill
        self.read_fixed = model.prefill_fixed_seconds or 0.0
        self.decode = model.decode_tokens_per_second or prior.decode
        self.slowdown = model.decode_slowdown or 0.0
        self.room = model.room
        self.load_seconds = load_seconds
        self.registered_resident = model.resident
        self.avoided = avoided
        self.most_models = node.most_models or ASSUMED_MODELS
        self.memory_bytes = node.hardware.vram_bytes or node.hardware.ram_bytes
        self._sizes = view.sizes

    @property
    def resident(self) -> bool:
        """By the newest credits; these leave the list out when it is too long, then by the registration."""
        known = self.account.resident
        return self.model in known if known else self.registered_resident

    @property
    def crowded(self) -> bool:
        """Whether loading the model here is likely to put another one out of memory."""
        return crowded(self.model, self.account.resident, self._sizes, self.most_models, self.memory_bytes)


def crowded(model: str, there: Collection[str], sizes: Mapping[str, int], places: int, memory_bytes: int) -> bool:
    """Whether a model finds no place beside these: `places` for models, `memory_bytes` for their `sizes`; what is 0 is not known."""
    if len(there) >= places:
        return True
    return 0 < memory_bytes < sizes.get(model, 0) + sum(sizes.get(name, 0) for name in there)


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """No live node passes the filters. `missing` says, one phrase each, what a node would need; `hopeless` why no registered one has it.
    `unable`: any model would do, but all deny what is asked for; another one may come.
    """

    missing: tuple[str, ...]
    hopeless: Failure | None = None
    unable: Failure | None = None


def candidates(demand: Demand, nodes: Sequence[NodeView], registered: Iterable[Node] = ()) -> tuple[Candidate, ...] | Unplaceable:
    """Every (node, model) that could run a step of this demand; `nodes` are the live ones, `registered` all that are known.

    Avoided nodes are left out when another node remains. Fallback models count only when no live node has the model itself, or where all
    that have it fail at it. Where the step may not fit every window, those that have the room are asked, else the largest. Of what is left
    those are taken that are preferred, if there are any.
    """
    suitable = [view for view in nodes if all(passes(view.node) for _, passes in _node_filters(demand))]
    preferred = {view.node.id for view in suitable if all(tag in view.node.tags for tag in demand.prefers)} if demand.prefers else ()
    for model in (demand.model, *demand.fallback_models):
        found = [candidate for view in suitable for candidate in _of_node(view, model, demand)]
        if demand.beyond_window is not None:
            found = [c for c in found if not c.avoided]
        if found:
            found = _roomy([c for c in found if not c.avoided] or found, demand.likely_tokens)
            return tuple(([c for c in found if c.node in preferred] if preferred else []) or found)
    why = hopeless(demand, registered)
    denied = why is not None and why.kind is FailureKind.UNSUPPORTED and AUTO in (demand.model, *demand.fallback_models)
    return Unplaceable(missing(demand, [view.node for view in nodes]), None if denied else why, why if denied else None)


def _roomy(found: list[Candidate], likely_tokens: int) -> list[Candidate]:
    if not likely_tokens:
        return found
    largest = max(c.room or 0 for c in found)
    return [c for c in found if c.room is None or c.room >= likely_tokens] or [c for c in found if c.room == largest]


def hopeless(demand: Demand, registered: Iterable[Node]) -> Failure | None:
    """Why no registered node that has the model, be it away, could ever run the step: its window, or what the model cannot do."""
    wanted = (demand.model, *demand.fallback_models)
    known = [
        (node, model) for node in registered for model in node.models if any(_is(model, name) for name in wanted)
        if demand.operation in model.operations
    ]  # fmt: skip
    if not known:
        return None
    able = [(node, model) for node, model in known if _able(model, demand)]
    if not able:
        whose = "no model here can" if AUTO in wanted else f"model {' or '.join(wanted)} cannot"
        return Failure(kind=FailureKind.UNSUPPORTED, message=f"{whose} do this: {', '.join(demand.abilities)}")
    if any(_holds(model, demand) and not (demand.beyond_window is not None and node.id in demand.avoid) for node, model in able):
        return None
    loaded = demand.beyond_window is None or all(model.window for _, model in able)  # a refusal below the maximum: it is loaded with less
    window = (max(model.room or 0 for _, model in able) or None) if loaded else None
    largest = "" if window is None else f"; the largest has {window} tokens"
    return Failure(kind=FailureKind.CONTEXT_LENGTH, message=f"the prompt exceeds the window of every node{largest}", window=window)


def missing(demand: Demand, nodes: Iterable[Node]) -> tuple[str, ...]:
    """What no live node has, one phrase each; if each thing is there but not on one node, that is said."""
    present = tuple(nodes)
    if not present:
        return ("a live node",)
    manages = demand.operation == Operation.MANAGE
    checks = [*_node_filters(demand), *(() if manages else (_model_filter(demand),))]
    if not manages and any(checks[-1][1](node) for node in present):
        checks.append(_working_filter(demand))
    lacking = tuple(phrase for phrase, passes in checks if not any(passes(node) for node in present))
    return lacking or ("one node with all of: " + ", ".join(phrase for phrase, _ in checks),)


Filter = tuple[str, Callable[[Node], bool]]


def _node_filters(demand: Demand) -> list[Filter]:
    filters: list[Filter] = [
        ("a node that is reachable", lambda node: node.reachable),
        ("a node that is not draining", lambda node: not node.draining),
        ("a node that does not yield to its owner", lambda node: not node.yields),
        ("a node that is awake", lambda node: not node.asleep),
        ("a node whose calls do not fail", lambda node: not node.broken),
        ("a node that manages models", lambda node: node.manages == demand.capability)
        if demand.operation == Operation.MANAGE
        else (f"capability {demand.capability}", lambda node: demand.capability in node.capabilities),
    ]
    if demand.node is not None:
        filters.append((f"node {demand.node}", lambda node: node.id == demand.node))
    filters += [(f"tag {tag}", partial(_has_tag, tag)) for tag in demand.tags]
    if demand.min_vram_bytes:
        filters.append((_gigabytes(demand.min_vram_bytes), lambda node: node.hardware.vram_bytes >= demand.min_vram_bytes))
    return filters


def _model_filter(demand: Demand) -> Filter:
    wanted = (demand.model, *demand.fallback_models)
    phrase = "a model" if AUTO in wanted else "model " + " or ".join(wanted)
    phrase += f" for {demand.operation}"
    if demand.min_context:
        phrase += f" with {demand.min_context} tokens of context"
    if (least := _least_window(demand)) is not None:
        phrase += f" with a window of more than {least} tokens"
    if demand.abilities:
        phrase += f" that can do {', '.join(demand.abilities)}"
    return phrase, lambda node: any(_suits(model, name, demand) for name in wanted for model in node.models)


def _working_filter(demand: Demand) -> Filter:
    wanted = (demand.model, *demand.fallback_models)
    phrase = f"a node that does not fail at {'any model' if AUTO in wanted else ' or '.join(wanted)}"
    return phrase, lambda node: any(_suits(model, name, demand) and not model.broken for name in wanted for model in node.models)


def _has_tag(tag: str, node: Node) -> bool:
    return tag in node.tags


def _gigabytes(count: int) -> str:
    tenths = min(count, _MOST_BYTES) // 10**8  # whole numbers: a float ends at 1e308
    return f"{tenths // 10}.{tenths % 10} GB of VRAM"


def _of_node(view: NodeView, wanted: str, demand: Demand) -> list[Candidate]:
    avoided = view.node.id in demand.avoid
    if demand.operation == Operation.MANAGE:  # it need not be there
        there = next((model for model in view.node.models if _is(model, wanted)), NodeModel(name=wanted))
        return [Candidate(view, there, load_seconds=0.0, avoided=avoided)]
    return [
        Candidate(view, model, load_seconds=_load_seconds(model), avoided=avoided)
        for model in view.node.models
        if _suits(model, wanted, demand) and not model.broken
    ]


def _suits(model: NodeModel, wanted: str, demand: Demand) -> bool:
    return _is(model, wanted) and demand.operation in model.operations and _holds(model, demand) and _able(model, demand)


def _is(model: NodeModel, wanted: str) -> bool:
    return wanted in (AUTO, model.name) or canonical(model.name) == canonical(wanted)


def _holds(model: NodeModel, demand: Demand) -> bool:
    """A window that the node did not tell is taken to suffice: its own count decides."""
    room, least = model.room, _least_window(demand)
    return room is None or (room >= demand.min_context and (least is None or room > least))


def _least_window(demand: Demand) -> int | None:
    """A window of so many tokens is too small; None: any will do."""
    return max(demand.fewest_tokens, demand.beyond_window or 0) or None


def _able(model: NodeModel, demand: Demand) -> bool:
    """What the endpoint does not deny, it may be asked for."""
    return all(model.abilities.get(ability, True) for ability in demand.abilities)


def _load_seconds(model: NodeModel) -> float:
    return model.load_seconds or load_seconds(model)


_STATES: tuple[Readiness, ...] = ("free", "busy", "cold")


def seen_models(nodes: Sequence[NodeView]) -> dict[str, RatedModel]:
    """What these live nodes tell of their models that write, by full names: the best state and speed, the largest window, what any can."""
    found: dict[str, RatedModel] = {}
    at_work = (view for view in nodes if view.node.at_work and not view.node.broken)
    for view, model in [(each, model) for each in at_work for model in each.node.models if not model.broken and _writes(model)]:
        there = Candidate(view, model, load_seconds=_load_seconds(model), avoided=False)
        free = view.account.running < view.node.slots
        row = RatedModel.of_valid(
            model=model.name,
            state="cold" if not there.resident else "free" if free else "busy",
            speed=round(there.decode, 1),
            load_seconds=round(there.load_seconds, 1),
            window=model.room,
            abilities=dict(model.abilities),
        )
        name = canonical(model.name)
        found[name] = row if name not in found else _either(found[name], row)
    return found


def _writes(model: NodeModel) -> bool:
    """A card may say otherwise of an embedder: its nodes know."""
    return any(operation != Operation.EMBED for operation in model.operations)


def _either(one: RatedModel, other: RatedModel) -> RatedModel:
    return one.model_copy(
        update={
            "state": min(one.state, other.state, key=lambda state: _STATES.index(state or "cold")),
            "speed": max(one.speed or 0.0, other.speed or 0.0),
            "load_seconds": min(one.load_seconds or 0.0, other.load_seconds or 0.0),
            "window": max(one.window or 0, other.window or 0) or None,
            "abilities": {
                **one.abilities,
                **{ability: able for ability, able in other.abilities.items() if able or ability not in one.abilities},
            },
        }
    )
