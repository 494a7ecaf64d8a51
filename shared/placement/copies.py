"""Copies: how many nodes are to have a model in memory, and which of them loads or keeps it next. Pure.

Nobody is asked and nobody decides for others: each worker puts the question for itself, and where all have read the same they come to
different turns. Where one does not do its part, the next one's turn comes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from shared.contracts.node import Node, NodeModel
from shared.estimates import ANSWER_TOKENS
from shared.model_names import canonical
from shared.placement.filters import ASSUMED_MODELS, UNKNOWN, crowded
from shared.placement.prior import prior_speeds

FEWEST_CALLS = 2.0
"""Within an hour: for fewer nothing is loaded."""
SHARE = 0.7
"""Of a node's time that the calls which are expected may take, before another one is wanted."""


Able = Sequence[tuple[Node, NodeModel]]
"""Nodes at work that have a model, and bring it into memory at a word."""


def turn(me: str, able: Able, copies: int) -> int | None:
    """How many turns before this node's to load the model; 0: it is its turn. None: enough nodes have it, it has it, or cannot load it."""
    missing = copies - sum(of.resident for _, of in able)
    if missing <= 0:
        return None
    waiting = sorted((_rank(node, of), node.id) for node, of in able if not of.resident)
    names = [name for _, name in waiting]
    return names.index(me) // missing if me in names else None


def keeps(me: str, able: Able, copies: int) -> bool:
    """Whether this node is of those by which the copies are kept that there are."""
    there = sorted((_rank(node, of), node.id) for node, of in able if of.resident)
    return me in [name for _, name in there[:copies]]


def expected(nodes: Iterable[Node], hour: int) -> Counter[str]:
    """Calls that the live nodes expect in this hour of the day, by what each has had: of each model, by its full name."""
    calls = Counter[str]()
    for node in nodes:
        for name, counts in node.demand.items():
            calls[canonical(name)] += counts[hour]
    return calls


def wanted(calls: float, able: Able) -> int:
    """Copies that so many calls within an hour want."""
    if calls < FEWEST_CALLS or not able:
        return 0
    seconds = min(ANSWER_TOKENS / _decode(node, of) / node.slots for node, of in able)
    return min(len(able), ceil(calls * seconds / 3_600 / SHARE))


def finds_place(node: Node, model: NodeModel) -> bool:
    """Without one that would have to leave."""
    there = [other for other in node.models if other.resident and other.name != model.name]
    places = node.most_models or ASSUMED_MODELS * max(1, len(node.hardware.gpus))
    sizes = {other.name: max(other.size_bytes, other.loaded_bytes) for other in (model, *there)}
    names = [other.name for other in there]
    return not crowded(model.name, names, sizes, places, node.hardware.vram_bytes or node.hardware.ram_bytes)


def by_model(nodes: Iterable[Node]) -> Mapping[str, Able]:
    """Who is able to have it, of each model, by its full name."""
    found = defaultdict[str, list[tuple[Node, NodeModel]]](list)
    for node in nodes:
        if node.at_work and node.manages and not node.broken:
            for own in node.models:
                if not own.broken:
                    found[canonical(own.name)].append((node, own))
    return found


def _rank(node: Node, model: NodeModel) -> tuple[bool, float]:
    """Where it fits first, then where it is fastest."""
    return not finds_place(node, model), -_decode(node, model)


def _decode(node: Node, model: NodeModel) -> float:
    if model.decode_tokens_per_second:
        return model.decode_tokens_per_second
    return prior_speeds(node.hardware, model).decode if model.size_bytes else UNKNOWN.decode
