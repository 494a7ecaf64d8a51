"""Registry: the nodes that have announced themselves, folded from `nodes`. Pure; time is passed in (monotonic seconds).

Being registered is not being live: that is said by credits. `version` changes when something changes that a choice depends on.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.contracts.node import Node


class Registry:
    """Latest announcement of each node. Bounded by forgetting those that do not repeat theirs."""

    def __init__(self, *, forgotten_seconds: float) -> None:
        self._forgotten_seconds = forgotten_seconds
        self._nodes: dict[str, Node] = {}
        self._announced_at: dict[str, float] = {}
        self.version = 0

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, node: str) -> Node | None:
        return self._nodes.get(node)

    def on_node(self, node: Node, now: float) -> None:
        """Fold an announcement."""
        known = self._nodes.get(node.id)
        self._nodes[node.id] = node
        self._announced_at[node.id] = now
        if known is None or known.model_copy(update={"at": node.at}) != node:
            self.version += 1

    def on_tombstone(self, node: str) -> None:
        """The node has left."""
        if self._nodes.pop(node, None) is not None:
            del self._announced_at[node]
            self.version += 1

    def expire(self, now: float) -> None:
        """Forget nodes that have not announced themselves for too long."""
        for node in [n for n, at in self._announced_at.items() if now - at > self._forgotten_seconds]:
            self.on_tombstone(node)
