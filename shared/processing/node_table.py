"""The table of nodes: the newest announcement of each, folded from `nodes`. Pure; time is passed in (monotonic seconds).

Being registered is not being live: that is said by credits. Whether a node has gone silent is decided by how long the reader itself has
heard nothing, never by comparing two machines' clocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import inf

from shared.contracts.base import NodeId
from shared.contracts.node import Node
from shared.errors import InvalidRecord
from shared.kafka.port import Record

MOST_NODES = 4_096


def read_node(record: Record) -> tuple[NodeId, Node | None]:
    """Whose record of `nodes` it is, and what it announces; None: it has left. Raises InvalidRecord or ValidationError."""
    if record.value is not None:
        node = Node.model_validate_json(record.value)
        return node.id, node
    if record.key is None:
        raise InvalidRecord("a tombstone needs the node's id as its key")
    return record.key.decode("utf-8", "replace"), None


class NodeTable:
    """`version` changes when something changes that a choice depends on."""

    def __init__(self, silent_seconds: float = inf, most: float = MOST_NODES) -> None:
        """Who has not announced itself for `silent_seconds` is put aside by `expire`. Nobody is taken in beyond `most`."""
        self._silent_seconds, self._most = silent_seconds, most
        self._nodes: dict[NodeId, Node] = {}
        self._heard_at: dict[NodeId, float] = {}
        self._aside: OrderedDict[NodeId, Node] = OrderedDict()
        self.version = 0

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def known(self) -> Iterator[Node]:
        """Also those that are silent for long and have not left: asleep, perhaps."""
        yield from self._nodes.values()
        yield from self._aside.values()

    def get(self, node: NodeId) -> Node | None:
        return self._nodes.get(node)

    def heard_at(self, node: NodeId) -> float:
        """When one that is here announced itself last."""
        return self._heard_at[node]

    def on_record(self, record: Record, now: float) -> None:
        """Fold a record of `nodes`. Raises as `read_node`."""
        name, node = read_node(record)
        if node is None:
            self.on_gone(name)
        else:
            self.on_node(node, now)

    def on_node(self, node: Node, now: float) -> None:
        """Fold an announcement."""
        known = self._nodes.get(node.id)
        if known is None and len(self._nodes) >= self._most:
            return
        self._nodes[node.id], self._heard_at[node.id] = node, now
        self._aside.pop(node.id, None)
        if known is None or known.model_copy(update={"at": node.at}) != node:
            self.version += 1

    def on_gone(self, node: NodeId) -> None:
        """The node has left."""
        self._aside.pop(node, None)
        if self._nodes.pop(node, None) is not None:
            del self._heard_at[node]
            self.version += 1

    def expire(self, now: float) -> None:
        """Put aside nodes that have not announced themselves for too long; so many of them are remembered."""
        for name in [name for name, at in self._heard_at.items() if now - at > self._silent_seconds]:
            node = self._nodes[name]
            self.on_gone(name)
            self._aside[name] = node
            if len(self._aside) > MOST_NODES:
                self._aside.popitem(last=False)
