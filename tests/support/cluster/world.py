"""A whole cluster in one process: the real services, several instances each, on the in-memory log, with simulated nodes. Simulated: no
model answers here, and time is virtual.

    async with World(seed, FaultMix(kill=0.5)) as world:
        world.kill("planner-1"); world.start("planner-1"); world.pause("worker-2"); world.wake("worker-2")
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest

from services.cache.app import build as build_cache
from services.critic.app import build as build_critic
from services.delay.app import build as build_delay
from services.ingress.app import Ingress
from services.ingress.replies.waiters import Caller
from services.planner import kept
from services.planner.app import Planner
from services.router.app import build as build_router
from services.sink.app import build as build_sink
from services.sink.settings import SinkSettings
from services.worker.app import build as build_worker
from shared.clock import LoopClock
from shared.contracts import schedule
from shared.contracts.headers import envelope
from shared.contracts.node import Hardware
from shared.contracts.result import Result
from shared.contracts.schedule import Schedule
from shared.kafka.client.watched import WatchedLog
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Log, Message, MissedRecords, TopicPartition
from shared.processing.provision import new_topics
from shared.processing.registry import registry_key
from shared.processing.topic_news import TopicNews, TopicWatch
from shared.sealing.cipher import ClusterKeys
from shared.sealing.key_ring import KeyRing
from shared.sealing.sealed_log import SealedLog
from shared.service import Environment, Readiness, Service
from shared.settings import ClusterSettings
from shared.topics import Topics
from tests.support.cache_store import MemoryCache
from tests.support.cluster import settings
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.history import History
from tests.support.cluster.nodes import Endpoint, Node, backend_on
from tests.support.cluster.processes import Process, State
from tests.support.cluster.receivers import Receivers
from tests.support.cluster.rest import Request
from tests.support.sealing import Eyes
from tests.support.sink_store import MemoryStore

MONOTONIC_SPREAD_SECONDS = 10_000.0
DAY_SECONDS = 86_400.0
SHORTEST_RETENTION_SECONDS = 30.0
"""However short a day is: far above a node's second between two announcements, as in a real cluster."""
_RETENTION_LOOK_SECONDS = 5.0
_TOLD = 0.5
"""How often whoever starts an instance again says that the process before has ended."""
_AWAKE_SECONDS = 3.0
"""One that woke a moment ago had no time to be heard, or to hear."""


class MachineClock(LoopClock):
    """One machine's: its wall clock is off by `skew_seconds`, its monotonic clock began whenever the machine did."""

    def __init__(self, skew_seconds: float, began: float) -> None:
        super().__init__(skew_seconds=skew_seconds)
        self._began = began

    def monotonic(self) -> float:
        return self._began + super().monotonic()


@dataclass(slots=True)
class Instance:
    """One life of one instance of a service."""

    name: str
    service: Any
    process: Process
    stop: asyncio.Event
    task: asyncio.Task[None]
    news: TopicNews
    endpoint: Endpoint | None = None
    """A worker's."""
    awake_since: float = 0.0
    """Monotonic, of the world."""

    def readiness(self) -> Readiness:
        """As /readyz says it."""
        own, (ready, reasons) = self.service.readiness(), self.news.readiness()
        return Readiness(own.ready and ready, own.reasons + reasons)


class World:
    """Everything that one simulated run needs. Use under `processes.run`."""

    def __init__(self, seed: int, mix: FaultMix, aside: tuple[str, ...] = (), sealed: Path | None = None) -> None:
        """`aside`: instances besides, for whom no job waits. `sealed`: a file of cluster keys; then all seal."""
        self.seed, self.mix = seed, mix
        self.random = Random(seed)
        self.clock = LoopClock()
        self.workers = settings.WORKERS[: mix.workers]
        self.names = (*settings.PLANNERS, *settings.ROUTERS, *self.workers, *settings.DELAYS, *settings.INGRESSES, *aside)
        self.store = MemoryStore(Random(seed + 5))
        """Of the sinks."""
        self.receivers = Receivers(Random(seed + 6), mix.receivers)
        """Of callbacks."""
        self.cached = MemoryCache(Random(seed + 7))
        """Of the caches."""
        self.topics = settings.topics()
        self.log = MemoryLog(self.clock, random=Random(seed + 1), timings=settings.TIMINGS)
        self.sealed = sealed
        self.eyes = None if sealed is None else Eyes(self.topics, ClusterKeys(str(sealed)))
        self.history = History(self.log, self.topics, self.eyes)
        self.instances: dict[str, Instance] = {}
        self.earlier: list[Instance] = []
        """Boots of workers that another one has succeeded while they ran."""
        self.voided_early: list[str] = []
        """Claims that a later boot gave up while the earlier one ran them."""
        self.nodes: dict[str, Node] = {}
        self._told = Random(seed + 4)
        self._dead_boots: dict[str, str] = {}
        """Instance → its last life, whose process whoever starts it saw end."""
        self._gone_at: dict[str, float] = {}
        self.outages: list[tuple[str, float, float]] = []
        """(instance, from, to): paused, or dead until its next life."""
        self.ended: list[str] = []
        """Instances whose service ended by itself, with the reason."""
        self.schedules: list[tuple[Schedule, tuple[float, ...]]] = []
        """What was declared, each with the instants of its runs."""
        self._clocks: dict[str, MachineClock] = {}
        self._lives: Counter[str] = Counter()
        self._dead: list[Instance] = []
        self.expired: defaultdict[TopicPartition, list[Any]] = defaultdict(list)
        """What retention has deleted."""
        self.missed: defaultdict[str, list[MissedRecords]] = defaultdict(list)
        """Service → what its readers have told that retention deleted before they came to it."""
        self.requests: list[Request] = []
        """Of REST callers."""
        self.told: list[tuple[Caller, Result]] = []
        """Callers who have learned the end of their job, in order."""
        self._patching = pytest.MonkeyPatch()
        self.retention: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.log.create(new_topics(self.topics))
        self._patching.setattr(kept, "OLDEST_SECONDS", kept.OLDEST_SECONDS * self.mix.day_seconds / DAY_SECONDS)
        self._patching.setattr(Caller, "on_final", self._telling(Caller.on_final))
        self.retention = asyncio.create_task(self._delete_old())
        for name in self.workers:
            self.nodes[name] = Node(name, Random(self.random.random()))
        policed = settings.POLICED if any(name.startswith("critic") for name in self.names) else {}
        for tenant, limits in (settings.LIMITED | policed).items():
            self.declare("tenant", tenant, limits.to_bytes())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.retention is not None
        self.retention.cancel()
        self._patching.undo()
        for name in list(self.instances):
            self.kill(name)
        for instance in list(self.earlier):
            self.end(instance)
        for instance in self._dead:
            await instance.process.bury()
        for node in self.nodes.values():
            await node.close()

    def _telling(self, on_final: Callable[[Caller, Result], None]) -> Callable[[Caller, Result], None]:
        def tell(caller: Caller, result: Result) -> None:
            before = caller.result
            on_final(caller, result)
            if caller.result is not before and caller.result is not None:
                self.told.append((caller, caller.result))

        return tell

    async def _delete_old(self) -> None:
        """The brokers: what is older than its topic's retention goes, read or not."""
        while True:
            await asyncio.sleep(_RETENTION_LOOK_SECONDS)
            for topic in self.topics.all():
                if topic.family.retention_ms is None:
                    continue
                kept_seconds = max(SHORTEST_RETENTION_SECONDS, topic.family.retention_ms / 1_000 * self.mix.day_seconds / DAY_SECONDS)
                for number in range(self.log.partition_count(topic.name)):
                    partition = self.log.existing(TopicPartition(topic.name, number))
                    before = list(partition.records)
                    partition.expire(int((self.clock.wall() - kept_seconds) * 1_000))
                    self.expired[partition.tp] += before[: len(before) - len(partition.records)]

    # The registry

    def schedule(self, declared: Schedule, due: tuple[float, ...]) -> None:
        """Declare a recurring job. `due`: the instants that its expression names from now on."""
        self.schedules.append((declared, due))
        self.declare(schedule.KIND, declared.id, declared.to_bytes())

    def declare(self, kind: str, name: str, value: bytes) -> None:
        """An administrator's entry in the registry."""
        topic = self.topics.registry
        self.log.write(TopicPartition(topic, 0), [Message(topic, value, registry_key(kind, name), 0, envelope(kind))])

    # Instances

    def start(self, name: str) -> Instance:
        """Begin a new life of an instance; the service is the name's first part."""
        self._lives[name] += 1
        life = f"{name}-{self._lives[name]}"
        process = Process(life)
        environment, news = self._environment(name, life)
        service, endpoint = self._build(name, environment)
        stop = process.call(asyncio.Event)
        task = process.spawn(service.run(stop))
        process.spawn(TopicWatch(environment.log, environment.topics, environment.clock, [news]).run())
        instance = self.instances[name] = Instance(name, service, process, stop, task, news, endpoint, self.clock.monotonic())
        task.add_done_callback(lambda done: self._on_end(instance, done))
        self._back(name)
        return instance

    def start_all(self) -> None:
        for name in self.names:
            self.start(name)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        instance = self.instances.pop(name, None)
        if instance is None:
            return
        self._gone_at.setdefault(name, self.clock.monotonic())
        self._dead_boots[name] = instance.process.name
        self.end(instance)

    def succeed(self, name: str) -> Instance:
        """Start another boot of a node while this one's process is there; returns the earlier one."""
        instance = self.instances.pop(name)
        self.earlier.append(instance)
        self.start(name)
        return instance

    def end(self, instance: Instance) -> None:
        """Its process is gone."""
        if instance in self.earlier:
            self.earlier.remove(instance)
        instance.process.kill()
        self.log.kill(instance.process.name)
        if instance.endpoint is not None:
            instance.endpoint.cut()
        self._dead.append(instance)

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        instance = self.instances.get(name)
        if instance is not None and instance.process.state is State.RUNNING:
            instance.process.pause()
            self.log.freeze(instance.process.name)
            self._gone_at.setdefault(name, self.clock.monotonic())

    def wake(self, instance: Instance) -> None:
        """SIGCONT."""
        if instance.process.state is State.PAUSED:
            instance.process.wake()
            self.log.thaw(instance.process.name)
            instance.awake_since = self.clock.monotonic()
            self._back(instance.name)

    async def stop(self, name: str) -> None:
        """SIGTERM; killed when it has not ended in time."""
        instance = self.instances.get(name)
        if instance is None:
            return
        instance.stop.set()
        await asyncio.wait([instance.task], timeout=2 * settings.GRACE_SECONDS)
        if self.instances.get(name) is instance:
            self.kill(name)

    def call(self, name: str, work: Any) -> asyncio.Task[Any] | None:
        """Run a coroutine in an instance's process (a request that it serves); None when it is not there."""
        instance = self.instances.get(name)
        return None if instance is None else instance.process.spawn(work)

    def services(self, kind: type) -> dict[str, Any]:
        """Name → living service of this class."""
        return {name: found.service for name, found in self.instances.items() if isinstance(found.service, kind)}

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let virtual time pass until the condition holds; False when it did not within `seconds`."""
        deadline = self.clock.monotonic() + seconds
        while not condition():
            if self.clock.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    def _back(self, name: str) -> None:
        gone_at = self._gone_at.pop(name, None)
        if gone_at is not None:
            self.outages.append((name, gone_at, self.clock.monotonic()))

    def missing(self, service: str, begin: float, end: float) -> float:
        """How long instances of a service were paused or dead between two moments, added up."""
        parts = ((max(a, begin), min(b, end)) for name, a, b in self.outages if name.startswith(service))
        return sum(b - a for a, b in parts if b > a)

    def _on_end(self, instance: Instance, task: asyncio.Task[None]) -> None:
        """A service that ends by itself is started anew, as a supervisor does."""
        if instance.process.state is State.BURIED:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.ended.append(f"{instance.process.name}: {error!r}")
        if instance in self.earlier:
            self.end(instance)
        elif self.instances.get(instance.name) is instance:
            self.kill(instance.name)
            if error is not None:
                asyncio.get_running_loop().call_later(1.0, self._restart, instance.name)

    def _restart(self, name: str) -> None:
        if name not in self.instances:
            self.start(name)

    def _environment(self, name: str, life: str) -> tuple[Environment, TopicNews]:
        if name not in self._clocks:
            skew = self.mix.skew_seconds
            self._clocks[name] = MachineClock(self.random.uniform(-skew, skew), self.random.uniform(0.0, MONOTONIC_SPREAD_SECONDS))
        clock, random = self._clocks[name], Random(self.random.random())
        dead = self._dead_boots.pop(name, "") if self._told.random() < _TOLD else ""
        cluster = ClusterSettings(topics=self.topics.settings, grace_seconds=settings.GRACE_SECONDS, boot=life, dead_boot=dead)
        service, told = name.split("-", maxsplit=1)[0], list[Callable[[str], None]]()
        news = TopicNews(service, clock, told, takes_requests=service == "ingress")

        def on_missed(found: Sequence[MissedRecords]) -> None:
            news.missed(found)
            self.missed[service] += found

        log: Log = self.log.process(life)
        if self.sealed is not None:
            ring = KeyRing(log, clock, self.topics, ClusterKeys(str(self.sealed)), client_id="ring")
            log = SealedLog(log, clock, self.topics, ring, packs=bool(self.seed % 2))
        watched = WatchedLog(log, clock, missed=on_missed)
        return Environment(cluster, watched, clock, random, Topics(self.topics.settings), life, told), news

    def _build(self, name: str, environment: Environment) -> tuple[Service, Endpoint | None]:
        mix = self.mix
        match name.split("-", maxsplit=1)[0]:
            case "planner":
                return Planner(environment, settings.planner(mix)), None
            case "router":
                return build_router(environment, settings.router(mix)), None
            case "delay":
                return build_delay(environment, settings.delay(mix)), None
            case "ingress":
                ingress = Ingress(environment, settings.ingress(mix))
                ingress.deliveries.post = self.receivers
                return ingress, None
            case "critic":
                return build_critic(environment), None
            case "cache":
                return build_cache(environment, settings.cache(), self.cached), None
            case "sink":
                return build_sink(environment, SinkSettings(), self.store), None
            case _:
                chosen = settings.worker(name, mix)
                backend, endpoint = backend_on(self.nodes[name], chosen)
                service = build_worker(environment, chosen, backend, Hardware(cpu_count=2))
                service.yielding.look = self.nodes[name].look
                service.attempts.begin = partial(self._on_begin, name, service.attempts.begin)  # type: ignore[method-assign]
                return service, endpoint

    def _on_begin(self, name: str, begin: Callable[..., None], *given: Any) -> None:
        """A boot of this node goes on: what earlier ones hold is void from now on."""
        for earlier in self.earlier:
            awake = earlier.process.state is State.RUNNING and self.clock.monotonic() - earlier.awake_since > _AWAKE_SECONDS
            if earlier.name == name and awake:
                self.voided_early += [a.claim for a in earlier.service.attempts.leases if a.task is not None]
        begin(*given)
