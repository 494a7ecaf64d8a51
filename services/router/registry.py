"""NodeRegistry: the nodes that have announced themselves, folded from `nodes`. Pure; time is passed in (monotonic seconds).

Being registered is not being live: that is said by credits. `version` changes when something changes that a choice depends on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from shared.contracts.node import Node

_MOST_AWAY = 1_024


class NodeRegistry:
    """Latest announcement of each node. Bounded by forgetting those that do not repeat theirs; a number of them is known a while longer."""

    def __init__(self, *, forgotten_seconds: float) -> None:
        self._forgotten_seconds = forgotten_seconds
        self._nodes: dict[str, Node] = {}
        self._announced_at: dict[str, float] = {}
        self._away: OrderedDict[str, Node] = OrderedDict()
        self.version = 0

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def known(self) -> Iterator[Node]:
        """Also those that are silent for long and have not left: asleep, perhaps."""
        yield from self._nodes.values()
        yield from self._away.values()

    def get(self, node: str) -> Node | None:
        return self._nodes.get(node)

    def on_node(self, node: Node, now: float) -> None:
        """Fold an announcement."""
        known = self._nodes.get(node.id)
        self._nodes[node.id] = node
        self._announced_at[node.id] = now
        self._away.pop(node.id, None)
        if known is None or known.model_copy(update={"at": node.at}) != node:
            self.version += 1

    def on_tombstone(self, node: str) -> None:
        """The node has left."""
        self._away.pop(node, None)
        if self._nodes.pop(node, None) is not None:
            del self._announced_at[node]
            self.version += 1

    def expire(self, now: float) -> None:
        """Forget nodes that have not announced themselves for too long."""
        for name in [n for n, at in self._announced_at.items() if now - at > self._forgotten_seconds]:
            node = self._nodes[name]
            self.on_tombstone(name)
            self._away[name] = node
            if len(self._away) > _MOST_AWAY:
                self._away.popitem(last=False)
