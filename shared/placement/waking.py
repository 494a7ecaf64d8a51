"""Which sleeping node is woken, by what waits. Pure; time is passed in, monotonic seconds.

One is woken for steps that no awake node could ever run, or that have waited too long for one that could. While one that could help is on
its way, no other is woken for the same; who does not come is tried again after pauses that double. Between any two lies a gap: a packet is
cheap, twenty machines that start at once are not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict

from shared.contracts.base import NodeId, PositiveSeconds, Sentence
from shared.contracts.node import Node
from shared.placement.demand import Demand
from shared.placement.filters import NodeView, Unplaceable, candidates
from shared.placement.ledger import NodeCredit

PORT = 9
"""Discard: nobody listens there."""
_MOST_ADDRESSES = 16


def destinations(text: str) -> list[tuple[str, int]]:
    """`192.168.1.255, 10.0.0.255:7` as addresses and ports. Raises ValueError."""
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        host, colon, port = part.partition(":")
        numbers = host.split(".")
        if len(numbers) != 4 or not all(n.isdecimal() and len(n) <= 3 and int(n) <= 255 for n in numbers):
            raise ValueError("a destination of magic packets is an IPv4 address, with a port or without: 192.168.1.255")
        if colon and not (port.isdecimal() and len(port) <= 5 and 0 < int(port) <= 65_535):
            raise ValueError("a port is a number from 1 to 65535")
        found.append((host, int(port) if colon else PORT))
    if len(found) > _MOST_ADDRESSES:
        raise ValueError(f"at most {_MOST_ADDRESSES} destinations")
    return found


def _destinations(text: str) -> str:
    destinations(text)
    return text


class WakeSettings(BaseModel):
    """Whether and when nodes that sleep are woken: `TUTTI_ROUTER__WAKE__<NAME>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    addresses: Annotated[Sentence, AfterValidator(_destinations)] = ""
    """Where magic packets go, broadcast addresses of the networks that nodes sleep in: `192.168.1.255, 10.0.0.255:9`. Empty: nobody is
    woken. They are an operator's word: a Node record names an interface, and never an address that this router sends to."""
    patience_seconds: PositiveSeconds = 60.0
    """A step that awake nodes could run waits so long before another one is woken for it."""
    gap_seconds: PositiveSeconds = 5.0
    """Between two bursts, whomever they are for."""
    coming_seconds: PositiveSeconds = 120.0
    """One that was woken is on its way for so long; then it is tried again, after twice the time, and so on."""
    longest_seconds: PositiveSeconds = 3_600.0
    """Longest time until it is tried again."""


class Wait(NamedTuple):
    """Steps of one demand. `seconds`: how long the first of them has waited; `homeless`: no awake node could run them."""

    demand: Demand
    seconds: float
    homeless: bool


class Waker:
    """Remembers whom it has woken."""

    def __init__(self, rules: WakeSettings) -> None:
        self._rules = rules
        self._tried: dict[NodeId, tuple[int, float]] = {}
        """Bursts so far, and when the last one was."""
        self._last = float("-inf")

    def due(self, waits: Iterable[Wait], sleeping: Iterable[Node], now: float) -> Node | None:
        """Who is to be woken now; a burst is taken to be sent."""
        rules, asleep = self._rules, {node.id: node for node in sleeping if node.mac is not None}
        self._tried = {name: tried for name, tried in self._tried.items() if name in asleep}
        if not asleep or now - self._last < rules.gap_seconds:
            return None
        for wait in sorted(waits, key=lambda wait: (not wait.homeless, -wait.seconds)):
            if wait.homeless or wait.seconds >= rules.patience_seconds:
                able = _able(wait.demand, asleep.values())
                ready = [name for name in able if self._may_try(name, now)]
                if ready and not any(self._is_coming(name, now) for name in able):
                    return self._wake(asleep[min(ready, key=self._bursts)], now)
        return None

    def _wake(self, node: Node, now: float) -> Node:
        self._tried[node.id], self._last = (self._bursts(node.id) + 1, now), now
        return node

    def _bursts(self, name: NodeId) -> int:
        return self._tried.get(name, (0, 0.0))[0]

    def _is_coming(self, name: NodeId, now: float) -> bool:
        return name in self._tried and now - self._tried[name][1] < self._rules.coming_seconds

    def _may_try(self, name: NodeId, now: float) -> bool:
        if name not in self._tried:
            return True
        bursts, at = self._tried[name]
        return now - at >= min(self._rules.longest_seconds, self._rules.coming_seconds * 2.0 ** min(bursts - 1, 20))


def _able(demand: Demand, asleep: Iterable[Node]) -> list[NodeId]:
    """Of the sleeping nodes those that could run it were they awake, the fastest first."""
    awake = [node.model_copy(update={"asleep": False, "reachable": True}) for node in asleep]
    found = candidates(demand, [NodeView(node, NodeCredit(node.id)) for node in awake])
    if isinstance(found, Unplaceable):
        return []
    best = sorted(found, key=lambda c: (-c.decode * c.slots, c.load_seconds, c.node))
    return list(dict.fromkeys(c.node for c in best))


def magic_packet(mac: str) -> bytes:
    """What wakes the interface of this address (`aa:bb:cc:dd:ee:ff`): six bytes of ones, then the address sixteen times."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16
