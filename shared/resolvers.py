"""Resolvers: names of others, for connections of aiohttp: what a name leads to is judged by the addresses that are then really used, so one
that changes between two look-ups gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

_LOOKUPS = 16


class CheckedResolver(AbstractResolver):
    """Leaves out addresses that are not allowed. What is left is what the connection is made to."""

    def __init__(self, inner: AbstractResolver, allowed: Callable[[str], bool]) -> None:
        self._inner, self._allowed = inner, allowed

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        kept = [each for each in await self._inner.resolve(host, port, family) if self._allowed(each["host"])]
        if not kept:
            raise OSError(None, "the name leads to no public address")
        return kept

    async def close(self) -> None:
        await self._inner.close()


class NameServer(AbstractResolver):
    """The system's resolver, in threads of its own: one that does not answer holds up nothing else. A name is asked for once at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, "names")
        self._asked: dict[str, asyncio.Future[list[ResolveResult]]] = {}

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        key = f"{host}:{port}"
        if key not in self._asked:
            asked = self._asked[key] = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port)
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
        return await asyncio.shield(self._asked[key])

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(hostname=host, host=str(to[0]), port=port, family=family, proto=proto, flags=numeric)
        for family, _, proto, _, to in found
    ]
