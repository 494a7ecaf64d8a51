"""The whole log in memory: topics, groups, time and faults of a Kafka cluster inside one event loop, for tests and simulations.

    log = MemoryLog(LoopClock(), random=Random(seed))
    planner = log.process("planner-1")      # a Log of its own; dies, freezes and thaws as one
    log.faults.send_seconds = (0.0, 0.2)    # see memory_faults
    log.kill("planner-1")

It never really waits: all delays are timers of the running loop, so under a virtual loop hours take milliseconds. The clock gives
the records' timestamps and must run with the loop (LoopClock, or SystemClock on a real loop).
"""

from __future__ import annotations

from random import Random
from typing import Literal, Unpack

from shared.clock import Clock
from shared.kafka.assignor import BalancedAssignor
from shared.kafka.memory.memory_admin import MemoryAdmin
from shared.kafka.memory.memory_cluster import GroupTimings, MemoryCluster
from shared.kafka.memory.memory_consumer import MemoryConsumer
from shared.kafka.memory.memory_group import MemoryGroup
from shared.kafka.memory.memory_process import MemoryProcess
from shared.kafka.memory.memory_producer import MemoryProducer
from shared.kafka.port import ConsumerOptions
from shared.kafka.settings import PARTITION_FETCH_BYTES


class MemoryLog(MemoryCluster):
    """The cluster. Implements `port.Log` for tests with one process; `process(name)` gives each of several its own."""

    trouble: str | None = None
    unheard = False

    def __init__(self, clock: Clock | None = None, *, random: Random | None = None, timings: GroupTimings | None = None) -> None:
        super().__init__(clock, random=random, timings=timings)
        self._groups: dict[str, MemoryGroup] = {}
        self._processes: dict[str, _ProcessLog] = {}
        self._own = self.process("main")

    # Log

    async def producer(self, *, client_id: str, acks: Literal["all", 1] = "all", linger_ms: int = 0) -> MemoryProducer:
        return await self._own.producer(client_id=client_id, acks=acks, linger_ms=linger_ms)

    async def consumer(self, **options: Unpack[ConsumerOptions]) -> MemoryConsumer:
        return await self._own.consumer(**options)

    async def admin(self) -> MemoryAdmin:
        return await self._own.admin()

    async def close(self) -> None:
        """Nothing is held by the log itself."""

    # Processes and faults

    def process(self, name: str) -> _ProcessLog:
        """The log as process `name` sees it. A killed name comes back as a new process."""
        known = self._processes.get(name)
        if known is None or known.process.state.value == "killed":
            known = self._processes[name] = _ProcessLog(self, MemoryProcess(name, self.availability))
        return known

    def kill(self, name: str) -> None:
        """SIGKILL: what is under way never returns, what travels is lost, sessions expire after the session timeout."""
        self._processes[name].process.kill()

    def freeze(self, name: str) -> None:
        """SIGSTOP: its calls return after the thaw; sessions expire meanwhile, and it comes back as a zombie."""
        self._processes[name].process.freeze()

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._processes[name].process.thaw()

    def group(self, name: str) -> MemoryGroup:
        if name not in self._groups:
            self._groups[name] = MemoryGroup(name, self)
        return self._groups[name]


class _ProcessLog:
    """Implements `port.Log` for one process."""

    trouble: str | None = None
    unheard = False

    def __init__(self, log: MemoryLog, process: MemoryProcess) -> None:
        self.process = process
        self._log = log

    async def producer(self, *, client_id: str, acks: Literal["all", 1] = "all", linger_ms: int = 0) -> MemoryProducer:
        await self.process.gate_patiently()
        return MemoryProducer(self._log, self.process)

    async def consumer(self, **options: Unpack[ConsumerOptions]) -> MemoryConsumer:
        group = options.get("group")
        await self.process.gate_patiently()
        return MemoryConsumer(
            self._log,
            self.process,
            client_id=options["client_id"],
            group=self._log.group(group) if group else None,
            reset=options.get("reset", "earliest"),
            assignor=options.get("assignor") or BalancedAssignor(),
            fetch_bytes=options.get("max_partition_fetch_bytes", PARTITION_FETCH_BYTES),
            committed_only=options.get("committed_only", False),
        )

    async def admin(self) -> MemoryAdmin:
        await self.process.gate_patiently()
        return MemoryAdmin(self._log, self.process, self._log.group)

    async def close(self) -> None:
        """Clients are closed by whoever opened them."""
