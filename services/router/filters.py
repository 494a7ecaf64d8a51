"""Filters: which live nodes can run a step at all, and what is missing when none can. Pure. Being busy is not a filter.

Residency is not one either: a model that must be loaded first costs time, it excludes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from services.router.demand import AUTO, Demand, canonical
from services.router.ledger import Account
from shared.contracts.node import Node, NodeModel

ASSUMED_DECODE = 20.0
ASSUMED_PREFILL = 200.0
"""Tokens per second of a model that was never measured: a small machine."""
LOAD_BYTES_PER_SECOND = 1e9
LOAD_MINIMUM_SECONDS = 1.0
"""A guess for loads that were never measured: a model file from a disk."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A live node: what it registered, and its account, whose numbers move between choices."""

    node: Node
    account: Account


class Candidate:
    """A node and the model of it that would run the step. `load_seconds` counts when the model is not resident."""

    __slots__ = ("account", "avoided", "decode", "load_seconds", "model", "node", "prefill", "registered_resident", "slots")

    def __init__(self, view: NodeView, model: NodeModel, *, load_seconds: float, avoided: bool) -> None:
        self.node = view.node.id
        self.account = view.account
        self.slots = view.node.slots
        self.model = model.name
        self.prefill = model.prefill_tokens_per_second or ASSUMED_PREFILL
        self.decode = model.decode_tokens_per_second or ASSUMED_DECODE
        self.load_seconds = load_seconds
        self.registered_resident = model.resident
        self.avoided = avoided

    @property
    def resident(self) -> bool:
        """By the newest credits; these leave the list out when it is too long, then by the registration."""
        known = self.account.resident
        return self.model in known if known else self.registered_resident


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """No live node passes the filters. `missing` says, one phrase each, what a node would need."""

    missing: tuple[str, ...]


def candidates(demand: Demand, nodes: Sequence[NodeView]) -> tuple[Candidate, ...] | Unplaceable:
    """Every (node, model) that could run a step of this demand; `nodes` are the live ones.

    Avoided nodes are left out when another node remains. Fallback models count only when no live node has the model itself.
    """
    suitable = [view for view in nodes if all(passes(view.node) for _, passes in _node_filters(demand))]
    for model in (demand.model, *demand.fallback_models):
        found = [candidate for view in suitable for candidate in _of_node(view, model, demand)]
        if found:
            return tuple([c for c in found if not c.avoided] or found)
    return Unplaceable(missing(demand, [view.node for view in nodes]))


def missing(demand: Demand, nodes: Iterable[Node]) -> tuple[str, ...]:
    """What no live node has, one phrase each; if each thing is there but not on one node, that is said."""
    present = tuple(nodes)
    if not present:
        return ("a live node",)
    checks = [*_node_filters(demand), _model_filter(demand)]
    lacking = tuple(phrase for phrase, passes in checks if not any(passes(node) for node in present))
    return lacking or ("one node with all of: " + ", ".join(phrase for phrase, _ in checks),)


Filter = tuple[str, Callable[[Node], bool]]


def _node_filters(demand: Demand) -> list[Filter]:
    filters: list[Filter] = [
        ("a node that is reachable", lambda node: node.reachable),
        ("a node that is not draining", lambda node: not node.draining),
        (f"capability {demand.capability}", lambda node: demand.capability in node.capabilities),
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
    return phrase, lambda node: any(_suits(model, name, demand) for name in wanted for model in node.models)


def _has_tag(tag: str, node: Node) -> bool:
    return tag in node.tags


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB of VRAM"


def _of_node(view: NodeView, wanted: str, demand: Demand) -> list[Candidate]:
    avoided = view.node.id in demand.avoid
    return [
        Candidate(view, model, load_seconds=_load_seconds(model), avoided=avoided)
        for model in view.node.models
        if _suits(model, wanted, demand)
    ]


def _suits(model: NodeModel, wanted: str, demand: Demand) -> bool:
    """A context length that the node did not tell is taken to suffice: the model's own error is clearer than ours."""
    named = wanted in (AUTO, model.name) or canonical(model.name) == canonical(wanted)
    fits = not demand.min_context or model.context_length is None or model.context_length >= demand.min_context
    return named and fits and demand.operation in model.operations


def _load_seconds(model: NodeModel) -> float:
    return model.load_seconds or LOAD_MINIMUM_SECONDS + model.size_bytes / LOAD_BYTES_PER_SECOND
