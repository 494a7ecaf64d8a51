"""Nodes that sleep are woken for steps that wait in this router (`shared/placement/waking` says which): a burst of magic packets by UDP.

Each router wakes for its own steps. That two wake one machine costs a packet.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from services.router.routing import Routing
from shared.clock import Clock
from shared.placement.choosing import Placement
from shared.placement.filters import Unplaceable
from shared.placement.waking import Wait, Waker, WakeSettings, destinations, magic_packet
from shared.telemetry import logs

log = logs.get(__name__)

LOOK_SECONDS = 0.5
"""Steps without a node leave for a delay after a second; until then they are seen here."""
_BURST = 3
"""Packets are lost."""


class WakeCalls:
    """`look` is called every `LOOK_SECONDS`."""

    def __init__(self, placement: Placement, routing: Routing, rules: WakeSettings, clock: Clock) -> None:
        self._placement, self._routing, self._clock = placement, routing, clock
        self._to, self._waker = destinations(rules.addresses), Waker(rules)

    def look(self) -> None:
        """Wake one node if one is due."""
        asleep = [node for node in self._placement.table.known() if node.asleep] if self._to else []
        if not asleep:
            return
        with self._routing.tries.chore("waking nodes"):
            node = self._waker.due(self._waits(self._clock.monotonic()), asleep, self._clock.monotonic())
            if node is not None and node.mac is not None:
                log.info("node_woken", node=node.id, mac=node.mac)
                broadcast(magic_packet(node.mac), self._to)

    def _waits(self, now: float) -> Iterator[Wait]:
        longest: dict[object, Wait] = {}
        for entry in self._routing.waiting:
            seconds, known = entry.waited + now - entry.arrived_at, longest.get(entry.lane)
            if known is None:
                longest[entry.lane] = Wait(entry.lane, seconds, isinstance(self._placement.candidates(entry.lane), Unplaceable))
            elif seconds > known.seconds:
                longest[entry.lane] = known._replace(seconds=seconds)
        yield from longest.values()


def broadcast(packet: bytes, to: Sequence[tuple[str, int]]) -> None:
    """A burst to each destination; one that cannot be reached keeps nothing from the others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setblocking(False)
        for where in [destination for destination in to for _ in range(_BURST)]:
            try:
                sender.sendto(packet, where)
            except OSError as error:
                log.warning("magic_packet_not_sent", to=where[0], reason=error.strerror)
