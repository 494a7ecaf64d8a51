"""Which node owns which mailbox number: a pure fold of the compacted `nodes` topic.

The first node in the log that names a number owns it until it names another one, or a tombstone takes it away. That a silent node is
gone is made a fact for all readers by a tombstone, before its number is named by somebody else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from shared.contracts.base import NodeId
from shared.contracts.node import Node
from shared.processing.node_table import NodeTable

_MOST_REMEMBERED = 4_096


class _Proposal(NamedTuple):
    """Name `number`; when `evict` is given, write that node's tombstone first."""

    number: int
    evict: NodeId | None = None


class MailboxRegistry:
    """The fold. `now` is the reader's monotonic clock, seconds."""

    def __init__(self) -> None:
        self._nodes = NodeTable(most=inf)  # every reader must come to the same owners
        self._named: dict[int, dict[NodeId, None]] = {}
        self._last: OrderedDict[int, NodeId] = OrderedDict()

    def on_node(self, node: Node, now: float) -> None:
        """A Node record was read."""
        seen = self._nodes.get(node.id)
        if seen is not None and seen.mailbox != node.mailbox:
            self._unname(node.id, seen.mailbox)
        self._nodes.on_node(node, now)
        self._named.setdefault(node.mailbox, {}).setdefault(node.id)
        self._note_owner(node.mailbox)

    def on_gone(self, node: NodeId) -> None:
        """A tombstone was read."""
        seen = self._nodes.get(node)
        if seen is not None:
            self._nodes.on_gone(node)
            self._unname(node, seen.mailbox)

    def __contains__(self, node: NodeId) -> bool:
        return self._nodes.get(node) is not None

    def nodes(self) -> Iterator[Node]:
        """All that have registered and not left."""
        return iter(self._nodes)

    def owner(self, number: int) -> NodeId | None:
        """The node whose mailbox this is."""
        return next(iter(self._named.get(number, ())), None)

    def last_of(self, number: int) -> NodeId | None:
        """The node whose mailbox this is, or was last: nobody else's records lie behind its position."""
        return self._last.get(number)

    def number_of(self, node: NodeId) -> int | None:
        """The number that `node` owns; None when it has none, or another node was first."""
        seen = self._nodes.get(node)
        return seen.mailbox if seen is not None and self.owner(seen.mailbox) == node else None

    def newest(self, node: NodeId) -> Node | None:
        """The node's newest record."""
        return self._nodes.get(node)

    def propose(self, node: NodeId, partitions: int, now: float, expiry_seconds: float) -> _Proposal | None:
        """The number that `node` should name: its own, the one that it had, the lowest free one, else a silent node's; None: wait."""
        own = self.number_of(node)
        if own is not None and own < partitions:
            return _Proposal(own)
        free = [number for number in range(partitions) if self.owner(number) is None]
        if free:
            return _Proposal(next((number for number in free if self.last_of(number) == node), free[0]))
        owners = [(self._nodes.heard_at(owner), owner, number) for number in range(partitions) if (owner := self.owner(number))]
        heard_at, silent, number = min(owners, default=(now, "", 0))
        return _Proposal(number, silent) if now - heard_at >= expiry_seconds else None

    def _unname(self, node: NodeId, number: int) -> None:
        names = self._named.get(number, {})
        names.pop(node, None)
        if not names:
            self._named.pop(number, None)
        self._note_owner(number)

    def _note_owner(self, number: int) -> None:
        owner = self.owner(number)
        if owner is not None:
            self._last[number] = owner
            self._last.move_to_end(number)
            if len(self._last) > _MOST_REMEMBERED:
                self._last.popitem(last=False)
