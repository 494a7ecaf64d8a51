"""One service, or a few, on the in-memory log, mostly under virtual time; the test plays what stands around them. What all such tests need:
a log with topics, processes that are started, stopped and killed, what was written. `cluster/world` is the other one: all services, with
faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from random import Random
from typing import Any

from infra.verify.checker import Scope
from infra.verify.laws import LawKind
from infra.verify.reading import verify
from shared.clock import Clock, LoopClock
from shared.contracts.outcome import OUTCOME
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Log, Message, Record, TopicPartition
from shared.processing.provision import new_topics
from shared.service import Environment
from shared.settings import ClusterSettings
from shared.topics import Topics, TopicSettings
from tests.support.cluster.processes import Process, ProcessLoop


class JumpingClock(LoopClock):
    """Virtual time whose wall clock a test may set: days pass without their seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead


class Stage:
    """`topics` are made at once, unless a log is given. Use under `infra.lab.virtual_loop`; to pause a process, or to kill it between any
    two callbacks, under `cluster.processes`.
    """

    def __init__(self, topics: TopicSettings, *, seed: int = 0, clock: Clock | None = None, log: Any = None) -> None:
        self.random = Random(seed)
        self.clock: Clock = clock or JumpingClock()
        self.log: MemoryLog = MemoryLog(self.clock, random=Random(seed + 1)) if log is None else log
        self.topics = Topics(topics)
        if log is None:
            self.log.create(new_topics(self.topics))
        self._running: dict[str, tuple[Process, asyncio.Event, asyncio.Task[None]]] = {}
        self._killed: list[tuple[Process, asyncio.Task[None]]] = []

    # Processes

    def process(self, name: str) -> Log:
        """The log as a process of this name has it."""
        return self.log.process(name)

    def environment(self, process: str, instance: str | None = None, **settings: Any) -> Environment:
        chance = Random(self.random.random())
        return Environment(ClusterSettings(**settings), self.process(process), self.clock, chance, self.topics, instance or process)

    def run(self, name: str, service: Any) -> asyncio.Task[None]:
        """Begin a service, under the name of the process that its environment has."""
        process, stop = Process(name), asyncio.Event()
        task = process.spawn(service.run(stop))
        self._running[name] = process, stop, task
        return task

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        assert isinstance(asyncio.get_running_loop(), ProcessLoop), "another loop does not ask whether a process is paused"
        self._running[name][0].pause()

    def wake(self, name: str) -> None:
        self._running[name][0].wake()

    def gone(self) -> list[str]:
        """Who ended by itself."""
        return [name for name, (_, _, task) in self._running.items() if task.done()]

    async def stop(self, name: str) -> None:
        """SIGTERM, and the end of the process."""
        _, stop, task = self._running.pop(name)
        stop.set()
        await task

    def kill(self, name: str) -> None:
        """SIGKILL: nothing of the process runs on."""
        self.log.kill(name)
        if name in self._running:
            process, _, task = self._running.pop(name)
            process.kill()
            task.cancel()
            self._killed.append((process, task))

    async def close(self) -> None:
        """Kill what runs. Of a service that ended by itself its error is raised."""
        for name, (_, _, task) in list(self._running.items()):
            if task.done():
                task.result()
            self.kill(name)
        for process, _ in self._killed:
            await process.bury()
        await asyncio.gather(*(task for _, task in self._killed), return_exceptions=True)

    # Records

    def write(
        self, topic: str, partition: int, value: bytes | None, head: Iterable[tuple[str, bytes]] = (), key: bytes | None = None
    ) -> int:
        """One record; returns its offset."""
        return self.log.write(TopicPartition(topic, partition), [Message(topic, value, key, partition, tuple(head))])

    def records(self, topic: str, partition: int | None = None) -> list[Record]:
        """Everything in a topic, partition by partition, or in one of them."""
        numbers = range(self.log.partition_count(topic)) if partition is None else [partition]
        return [record for number in numbers for record in self.log.existing(TopicPartition(topic, number)).records]

    def values(self, topic: str, partition: int | None = None) -> list[bytes]:
        return [record.value for record in self.records(topic, partition) if record.value is not None]

    def outcomes(self, kind: type[Any] = object) -> list[Any]:
        """Of this kind."""
        every = [OUTCOME.validate_json(value) for value in self.values(self.topics.outcomes)]
        return [outcome for outcome in every if isinstance(outcome, kind)]

    def committed(self, topic: str, partition: int = 0, group: str = "tutti-router") -> int | None:
        return self.log.group(group).offsets.get(TopicPartition(topic, partition))

    async def until(self, condition: Callable[[], bool], seconds: float = 600.0, step: float = 0.1) -> float:
        """Let virtual time pass until the condition holds; returns how long it took. AssertionError after `seconds` of it."""
        began = self.clock.monotonic()
        while not condition():
            assert self.clock.monotonic() - began < seconds, f"not reached within {seconds} virtual seconds"
            await asyncio.sleep(step)
        return self.clock.monotonic() - began

    async def check_laws(self, jobs: int, planted: Collection[LawKind] = ()) -> None:
        """Laws 1 to 3 by `tutti verify`, over everything that was written: so many jobs have ended, each with its result. `planted`: what
        the test itself has written to be found.
        """
        report = await verify(self.log.process("verify"), Scope(self.topics, self.log.id), self.clock)
        assert report.findings.keys() == set(planted), report.as_json()["findings"]
        assert report.counts.settled.total() == jobs == len({record.key for record in self.records(self.topics.results)})
