"""One model over several machines: an endpoint that is whole only while all servers answer that it splits its model over.

A llama.cpp RPC server serves one client at a time and lets two more wait. Whoever connects to it to see whether it is there waits in that
line, also after he has left: two looks, and the third gets no answer from a server that is well. So the line is not entered: the handshake
is broken off at the server's answer to its first packet (Linux; elsewhere a connection is made and closed).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from services.worker.backends.base import Around, Backend, BackendProbe, ModelCallFailed
from shared.contracts.failure import FailureKind as K

CONNECT_SECONDS = 2.0
"""A member that has not answered by then is dead."""

Alive = Callable[[str], bool]


class MembersBackend(Around):
    """Another backend, which is reachable only while all its members are. `alive(member)` may take `CONNECT_SECONDS`, in a thread."""

    def __init__(self, inner: Backend, members: Sequence[str], alive: Alive | None = None) -> None:
        super().__init__(inner)
        self._members, self._alive = tuple(members), alive or answers

    async def probe(self) -> BackendProbe:
        """Raises NODE_UNREACHABLE also while a member is dead: the endpoint may not have noticed yet."""
        there = await asyncio.gather(*(asyncio.to_thread(self._alive, member) for member in self._members))
        dead = [member for member, alive in zip(self._members, there, strict=True) if not alive]
        if dead:
            raise ModelCallFailed(K.NODE_UNREACHABLE, f"of the servers that the model is split over {', '.join(dead)} does not answer")
        return await self._inner.probe()


def answers(member: str) -> bool:
    """Whether somebody listens at `host:port`. Blocks for `CONNECT_SECONDS` at most, a name's resolving apart."""
    host, _, port = member.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        return any(_listens(family, address) for family, _, _, _, address in found[:1])
    except (OSError, OverflowError):
        return False


def _listens(family: int, address: tuple[Any, ...]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_SECONDS)
        if hasattr(socket, "TCP_QUICKACK"):  # the handshake's last packet is held back, and the close says RST in its place
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        probe.connect(address)
        return True
