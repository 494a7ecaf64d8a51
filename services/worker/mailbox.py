"""Which node owns which mailbox number: a pure fold of the compacted `nodes` topic.

The first node in the log that names a number owns it until it names another one, or a tombstone takes it away. Whether a silent
node is gone is decided by how long the reader itself has heard nothing, never by comparing two machines' clocks; it is then made
a fact for all readers by a tombstone, before its number is named by somebody else.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from shared.contracts.base import NodeId

_MOST_REMEMBERED = 4_096


@dataclass(slots=True)
class _Seen:
    boot: str
    number: int
    heard_at: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """Name `number`; when `evict` is given, write that node's tombstone first."""

    number: int
    evict: NodeId | None = None


class MailboxRegistry:
    """The fold. `now` is the reader's monotonic clock, seconds."""

    def __init__(self) -> None:
        self._nodes: dict[NodeId, _Seen] = {}
        self._named: dict[int, dict[NodeId, None]] = {}
        self._last: OrderedDict[int, NodeId] = OrderedDict()

    def on_node(self, node: NodeId, boot: str, number: int, now: float) -> None:
        """A Node record was read."""
        seen = self._nodes.get(node)
        if seen is not None and seen.number != number:
            self._unname(node, seen.number)
        self._nodes[node] = _Seen(boot, number, now)
        self._named.setdefault(number, {}).setdefault(node)
        self._note_owner(number)

    def on_gone(self, node: NodeId) -> None:
        """A tombstone was read."""
        seen = self._nodes.pop(node, None)
        if seen is not None:
            self._unname(node, seen.number)

    def owner(self, number: int) -> NodeId | None:
        """The node whose mailbox this is."""
        return next(iter(self._named.get(number, ())), None)

    def last_of(self, number: int) -> NodeId | None:
        """The node whose mailbox this is, or was last: nobody else's records lie behind its position."""
        return self._last.get(number)

    def number_of(self, node: NodeId) -> int | None:
        """The number that `node` owns; None when it has none, or another node was first."""
        seen = self._nodes.get(node)
        return seen.number if seen is not None and self.owner(seen.number) == node else None

    def boot_of(self, node: NodeId) -> str | None:
        """The boot in the node's newest record."""
        seen = self._nodes.get(node)
        return seen.boot if seen else None

    def propose(self, node: NodeId, partitions: int, now: float, expiry_seconds: float) -> Proposal | None:
        """The number that `node` should name: its own, the one that it had, the lowest free one, else a silent node's; None: wait."""
        own = self.number_of(node)
        if own is not None and own < partitions:
            return Proposal(own)
        free = [number for number in range(partitions) if self.owner(number) is None]
        if free:
            return Proposal(next((number for number in free if self.last_of(number) == node), free[0]))
        silent = self._longest_silent(partitions, now, expiry_seconds)
        return Proposal(self._nodes[silent].number, silent) if silent else None

    def _longest_silent(self, partitions: int, now: float, expiry_seconds: float) -> NodeId | None:
        owners = [(self._nodes[owner].heard_at, owner) for number in range(partitions) if (owner := self.owner(number))]
        heard_at, owner = min(owners, default=(now, None))
        return owner if now - heard_at >= expiry_seconds else None

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
