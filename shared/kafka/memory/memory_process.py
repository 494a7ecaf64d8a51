"""A process as the in-memory cluster sees it: running, frozen (a zombie in the making) or killed; and the cluster being away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Literal, Protocol

from shared.errors import LogUnavailable


class ProcessState(Enum):
    RUNNING = "running"
    FROZEN = "frozen"
    KILLED = "killed"


class _ProcessClient(Protocol):
    """Whatever a process holds open."""

    def on_killed(self) -> None: ...
    def on_frozen(self) -> None: ...
    def on_thawed(self) -> None: ...


Absence = Literal["waits", "fails"]


class Availability:
    """Whether the cluster answers. While it is away, calls wait for it, or fail at once with LogUnavailable."""

    __slots__ = ("_waiting", "absence")

    def __init__(self) -> None:
        self.absence: Absence | None = None
        self._waiting: list[Callable[[], None]] = []

    def go_away(self, absence: Absence) -> None:
        self.absence = absence

    def come_back(self) -> None:
        self.absence = None
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def call(self, callback: Callable[[], None]) -> None:
        """Call now, or when the cluster is back; in order."""
        if self.absence is None:
            callback()
        else:
            self._waiting.append(callback)


class MemoryProcess:
    """Owner of clients that live, freeze and die together."""

    __slots__ = ("_availability", "_clients", "_waiting", "name", "state")

    def __init__(self, name: str, availability: Availability) -> None:
        self.name = name
        self.state = ProcessState.RUNNING
        self._availability = availability
        self._clients: dict[_ProcessClient, None] = {}
        self._waiting: list[Callable[[], None]] = []

    @property
    def blocked(self) -> bool:
        """Whether a call cannot go on right now."""
        return self.state is not ProcessState.RUNNING or self._availability.absence is not None

    def own(self, client: _ProcessClient) -> None:
        self._clients[client] = None

    def disown(self, client: _ProcessClient) -> None:
        self._clients.pop(client, None)

    def kill(self) -> None:
        """SIGKILL: nothing that is under way returns; sessions expire later."""
        self.state = ProcessState.KILLED
        self._waiting.clear()
        for client in list(self._clients):
            client.on_killed()

    def freeze(self) -> None:
        """SIGSTOP: calls under way return after the thaw; heartbeats stop, so sessions expire later."""
        assert self.state is ProcessState.RUNNING
        self.state = ProcessState.FROZEN
        for client in list(self._clients):
            client.on_frozen()

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.state is ProcessState.FROZEN
        self.state = ProcessState.RUNNING
        for client in list(self._clients):
            client.on_thawed()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def call(self, callback: Callable[[], None]) -> None:
        """Call now, or when the process runs again; never when it is dead."""
        if self.state is ProcessState.RUNNING:
            callback()
        elif self.state is ProcessState.FROZEN:
            self._waiting.append(callback)

    async def gate(self) -> None:
        """Pass when the process runs and the cluster answers. Raises LogUnavailable when the cluster is away and calls fail."""
        while self.blocked:
            if self._availability.absence == "fails" and self.state is ProcessState.RUNNING:
                raise LogUnavailable
            await self._unblocked()

    async def gate_patiently(self) -> None:
        """The same for what waits for the cluster however long it is away."""
        while self.blocked:
            await self._unblocked()

    async def gate_until_running(self) -> None:
        """Pass when the process runs, whether or not the cluster answers."""
        while self.state is not ProcessState.RUNNING:
            await self._unblocked()

    async def _unblocked(self) -> None:
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def open_gate() -> None:
            if not passed.done():
                passed.set_result(None)

        if self.state is ProcessState.RUNNING:
            self._availability.call(open_gate)
        else:
            self.call(open_gate)
        await passed
