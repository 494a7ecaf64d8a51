"""RateGroup: workers whose endpoints share one account. Each takes its part of the rate, and a pause that one is asked for is everybody's.

All of it is read from `nodes` and `credits`: there is no store, and nobody is asked. Pure; time is passed in (monotonic seconds). How much
of another's pause is left is reckoned by the brokers' clock, by which all records of `nodes` are stamped.
"""

from __future__ import annotations

from math import inf

from shared.contracts.base import NodeId
from shared.contracts.node import Node

MOST_MEMBERS = 4_096


class RateGroup:
    """The other members, as this node has heard of them. `name`: empty where the account is nobody else's."""

    def __init__(self, name: str, node: NodeId, silent_seconds: float) -> None:
        """Who has not told of himself for `silent_seconds` has no part of the rate."""
        self.name, self._node, self._silent_seconds = name, node, silent_seconds
        self._heard_at: dict[NodeId, float] = {}
        self._newest_ms, self._read_at = 0, -inf
        self._quiet_until_ms = 0.0

    def on_node(self, name: NodeId, node: Node | None, written_ms: int, now: float) -> bool:
        """A record of `nodes` was read, of whatever node; whether a member asks for quiet. `written_ms`: by the brokers' clock."""
        if not self.name:
            return False
        if written_ms >= self._newest_ms:
            self._newest_ms, self._read_at = written_ms, now
        if node is None or node.rate_group != self.name or name == self._node:
            self._heard_at.pop(name, None)
            return False
        if name in self._heard_at or len(self._heard_at) < MOST_MEMBERS:
            self._heard_at[name] = now
        asked = 0.0 if node.pause_of_group else node.pause_seconds
        self._quiet_until_ms = max(self._quiet_until_ms, written_ms + 1e3 * asked)
        return asked > 0

    def on_credits(self, name: NodeId, now: float) -> None:
        """A node, of whatever group, has told its places."""
        if name in self._heard_at:
            self._heard_at[name] = now

    def size(self, now: float) -> int:
        """Members that live, this one included."""
        return 1 + sum(now - heard_at <= self._silent_seconds for heard_at in self._heard_at.values())

    def pause_seconds(self, now: float) -> float:
        """How long from now on the account is left alone as others were asked to; 0: not at all."""
        return max(0.0, (self._quiet_until_ms - self._newest_ms) / 1e3 - (now - self._read_at)) if self._quiet_until_ms else 0.0
