"""Targets: on which nodes a task on a model is done: named or tagged ones, so many copies, or all; room for it is looked at first.

Pure. What a node has not told is taken to suffice: its endpoint's own word counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.ingress.problems import Problem, Refused
from shared.agents.cards import tier_of
from shared.contracts.base import Capability, Count, ModelName, NodeId, Ordinal, PositiveSeconds, PriorityClass
from shared.contracts.node import Node, NodeModel
from shared.contracts.tasks import Action
from shared.model_names import AUTO, spelling
from shared.patterns.models import MOST_TARGETS, Target

SPARE_DISK = 1.05
"""Of a model's size: the rest of the disk is not ours alone."""
DEADLINE_SECONDS = 86_400.0
"""Of a task that names none: a large model over a slow line, a node that is away for a night."""
_MOST_SHOWN = 20
_WHERE_IT_IS = frozenset({Action.DELETE, Action.UNLOAD, Action.UNPIN})
"""Without a word on nodes: all that have it."""
_INTO_MEMORY = frozenset({Action.LOAD, Action.PIN})


class TaskOrder(BaseModel):
    """What is to be done to a model, and where: `nodes`, nodes with all `tags`, so many `copies`, or `all`; without any of them one copy,
    or, to give it up, wherever it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Action
    model: ModelName
    to: ModelName | None = None
    """Of a copy: its name."""
    nodes: Annotated[tuple[NodeId, ...], Field(max_length=MOST_TARGETS)] = ()
    tags: Annotated[tuple[Capability, ...], Field(max_length=16)] = ()
    copies: Ordinal | None = Field(default=None, le=MOST_TARGETS)
    """On so many nodes: those that have it, then those with most room."""
    all: bool = False
    size_bytes: Count | None = None
    """Of a model that no node has yet: disks are looked at where it is given."""
    priority_class: PriorityClass | None = Field(default=None, alias="class")
    deadline_seconds: PositiveSeconds = Field(default=DEADLINE_SECONDS, le=7 * DEADLINE_SECONDS)

    @model_validator(mode="after")
    def _one_way(self) -> TaskOrder:
        if sum((bool(self.nodes), bool(self.tags), self.copies is not None, self.all)) > 1:
            raise ValueError("nodes, tags, copies and all exclude each other")
        if (self.to is None) == (self.action is Action.COPY):
            raise ValueError("`to` is the new name of a copy, and of nothing else")
        if self.model == AUTO or tier_of(self.model):
            raise ValueError("a task is of one model")
        if self.copies is not None and self.action in _WHERE_IT_IS:
            raise ValueError(f"a model is to be given up wherever it is, or on named nodes: {self.action.value} takes no copies")
        return self


def targets(order: TaskOrder, nodes: Iterable[Node]) -> tuple[Target, ...]:
    """Where it is done, by name. Raises Refused (404, 409): there is no such node, or not enough of them has room for it."""
    known = sorted((node for node in nodes if node.manages), key=lambda node: node.id)
    if order.action is not Action.PULL and not any(_model(node, order.model) for node in known):
        raise Refused(Problem(404, "model_not_found", f"no node that manages models has the model {order.model!r}", "model"))
    size = order.size_bytes or max((model.size_bytes for node in known if (model := _model(node, order.model))), default=0)
    if order.nodes:
        chosen = _named(order, known, size)
    else:
        chosen = _fitting(order, [node for node in known if set(order.tags) <= {*node.tags}], size)
    if len(chosen) > MOST_TARGETS:
        raise Refused(Problem(400, "too_many_nodes", f"one task is done on at most {MOST_TARGETS} nodes"))
    return tuple(Target(node=node.id, capability=node.manages or "chat") for node in chosen)


def _named(order: TaskOrder, known: Sequence[Node], size: int) -> list[Node]:
    by_name = {node.id: node for node in known}
    if missing := [name for name in order.nodes if name not in by_name]:
        there = ", ".join(list(by_name)[:_MOST_SHOWN]) or "none"
        message = f"no node {', '.join(missing[:_MOST_SHOWN])} that manages models; there are {there}"
        raise Refused(Problem(404, "node_not_found", message, "nodes"))
    chosen = [by_name[name] for name in dict.fromkeys(order.nodes)]
    if lacking := [f"{node.id}: {why}" for node in chosen if (why := lacks(order, node, size))]:
        raise Refused(Problem(409, "no_room", "; ".join(lacking[:_MOST_SHOWN]), "nodes"))
    return chosen


def _fitting(order: TaskOrder, known: Sequence[Node], size: int) -> list[Node]:
    """Of those that are tagged, or of all: who can do it now."""
    whys = {node.id: lacks(order, node, size) for node in known}
    able = [node for node in known if not whys[node.id]]
    if order.action is Action.PULL or order.action in _INTO_MEMORY:
        able = [node for node in able if node.at_work]
    one_copy = not (order.all or order.tags or order.action in _WHERE_IT_IS or order.action is Action.COPY)
    copies = order.copies or (1 if one_copy else None)
    if copies is not None:
        able = sorted(able, key=lambda node: (not _has(order, node), -_room(order, node), node.id))
    if len(able) < (copies or 1):
        reasons = "; ".join(f"{node}: {why}" for node, why in list(whys.items())[:_MOST_SHOWN] if why) or "none is there"
        message = f"{len(able)} of {copies or 1} nodes can {order.action.value} {order.model} now; {reasons}"
        raise Refused(Problem(409, "no_room", message))
    return able[:copies]


def lacks(order: TaskOrder, node: Node, size: int) -> str:
    """Why this node cannot do it; empty where it can, as far as it has told. `size`: of the model, in bytes; 0: unknown."""
    there = _model(node, order.model)
    if order.action is Action.PULL:
        free = node.hardware.disk_free_bytes
        if there is None and free is not None and size * SPARE_DISK > free:
            return f"{_gigabytes(free)} of disk are free, {_gigabytes(size)} are needed"
        return ""
    if there is None:
        return "it does not have the model"
    memory = node.hardware.vram_bytes or node.hardware.ram_bytes
    if order.action in _INTO_MEMORY and not there.resident and memory and there.size_bytes > memory - _pinned(node):
        return f"{_gigabytes(memory - _pinned(node))} of memory are not pinned, {_gigabytes(there.size_bytes)} are needed"
    return ""


def _has(order: TaskOrder, node: Node) -> bool:
    there = _model(node, order.model)
    return there is not None and (there.resident or order.action not in _INTO_MEMORY)


def _room(order: TaskOrder, node: Node) -> int:
    """In bytes, of what the action needs; who does not tell comes last."""
    if order.action in _INTO_MEMORY:
        return (node.hardware.vram_bytes or node.hardware.ram_bytes) - sum(model.size_bytes for model in node.models if model.resident)
    return node.hardware.disk_free_bytes or 0


def _pinned(node: Node) -> int:
    return sum(model.size_bytes for model in node.models if model.pinned)


def _model(node: Node, name: str) -> NodeModel | None:
    found = spelling(name, [model.name for model in node.models])
    return next((model for model in node.models if model.name == found), None)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
