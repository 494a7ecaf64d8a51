"""Run: the course of one chaos run: load, fault after fault, drain, verify."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from typing import Any

from pymongo import AsyncMongoClient

from infra.lab.chaos.callbacks import Receiver, shown
from infra.lab.chaos.callers import Callers, noticed
from infra.lab.chaos.crashes import Absence, Crash, defects
from infra.lab.chaos.figures import Struck
from infra.lab.chaos.jobs import JobMix, Ledger
from infra.lab.chaos.load import Load
from infra.lab.chaos.plan import Durations, Fault, FaultKind, cycle
from infra.lab.chaos.stage import Stage
from infra.verify.reading import scope_of, verify
from infra.verify.recount import counted, differences, recounted
from infra.verify.report import Report
from shared.clock import Clock
from shared.kafka.client.aio import AioLog
from shared.kafka.client.watched import WatchedLog
from shared.kafka.port import Log, TopicPartition
from shared.services import group_of
from shared.tasks import ended

PATIENCE_SECONDS = 60.0
"""Longest wait for the jobs that were in flight, before the next fault strikes."""
STALL_SECONDS = 60.0
"""What goes on when all is sent is waited for until it stands still for so long: results, and what the sinks are behind."""
TELL_SECONDS = 90.0
"""In which the last ends are told, or given up."""
_LOOK_SECONDS = 0.2
_SUPERVISE_SECONDS = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run does. `rate`: jobs a second at most."""

    jobs: int
    seed: int
    rate: float
    together: bool = False
    durations: Durations = field(default_factory=Durations)
    brokers: int = 1
    only: tuple[FaultKind, ...] = ()
    """These kinds of faults, where any are named."""


@dataclass(slots=True)
class Outcome:
    """What a run gives. Monotonic seconds."""

    ledger: Ledger
    struck: list[Struck]
    report: Report
    crashes: list[Crash]
    absences: list[Absence]
    load_seconds: float
    started_at: float
    drained_at: float
    callbacks: Mapping[str, int] = field(default_factory=dict)
    untold: tuple[str, ...] = ()
    """Jobs whose end was neither delivered nor given up."""
    uncounted: list[str] = field(default_factory=list)
    """What the sink's sums say else than a recount; empty where there is no store."""

    callers: Mapping[str, int] = field(default_factory=dict)
    """What became of the questions of those who ask over REST."""
    miscalled: tuple[str, ...] = ()
    """Answers that differ where they must not, and what callers met in an upgrade."""

    deceived: tuple[str, ...] = ()
    """Processes that called themselves ready while Kafka acknowledged nothing."""

    @property
    def unanswered(self) -> int:
        """Jobs that were acknowledged and have no result."""
        return len(self.ledger.open)

    @property
    def kept(self) -> bool:
        """The laws held."""
        return not self.report.violations and not self.unanswered

    @property
    def defects(self) -> list[Crash]:
        """Processes that ended by themselves without excuse."""
        return defects(self.crashes, self.absences)

    @property
    def wrong(self) -> list[str]:
        """Why the run failed; empty when it did not."""
        laws = [] if self.kept else ["a law was broken"]
        if self.untold:
            laws.append(f"{len(self.untold)} callbacks were neither delivered nor given up, as that of {self.untold[0]}")
        laws += [f"{len(self.miscalled)} callers were served wrong: {self.miscalled[0]}"] if self.miscalled else []
        laws += [f"ready, while Kafka acknowledged nothing: {', '.join(self.deceived)}"] if self.deceived else []
        laws += [f"the sink counted wrong: {self.uncounted[0]}"] if self.uncounted else []
        return [*laws, *(f"{crash.process} {crash.what.splitlines()[0]}" for crash in self.defects)]


class Run:
    """One run on a stage."""

    def __init__(self, stage: Stage, options: Options, clock: Clock, say: Say) -> None:
        self._stage, self._options, self._clock, self._say = stage, options, clock, say
        self._random = Random(options.seed)
        self._ledger = Ledger()
        self._struck: list[Struck] = []
        self._topics = stage.cluster.topics
        hook = f"http://localhost:{stage.hook_port}/hook" if stage.hook_port else None
        self._mix = JobMix(options.seed, f"c{options.seed}-", hook)
        self._load = Load(self._mix, self._ledger, self._topics, clock)
        self._receiver = Receiver(options.seed, stage.hook_port, clock)
        self._callers = Callers(stage.balancer, f"asked{options.seed}-", self._ledger.met, clock)

    async def run(self) -> Outcome:
        async with self._receiver.serving():
            return await self._run()

    async def _run(self) -> Outcome:
        stage, options = self._stage, self._options
        log = AioLog(stage.kafka.servers, self._clock)
        watched = WatchedLog(log, self._clock)
        started = self._clock.monotonic()
        watching = asyncio.create_task(self._load.watch(watched))
        supervising = asyncio.create_task(self._supervise())
        producing = asyncio.create_task(self._load.produce(log, stage.balancer.url, options.jobs, options.rate))
        calling = asyncio.create_task(self._callers.run())
        try:
            await _unless_broken(self._faults(), producing, watching, supervising, calling)
            self._load.enough.set()
            self._callers.enough.set()
            await producing
            await calling
            load_seconds = self._clock.monotonic() - started
            await _unless_broken(self._drain(), watching, supervising)
            untold = await self._receiver.told(self._ledger, self._mix, log, self._topics, TELL_SECONDS)
        finally:
            await ended(producing, watching, supervising, calling)
        drained = self._clock.monotonic()
        self._say("verifying")
        told_by_nobody = (self._topics.job_events, self._topics.results)  # of all other topics odd records become dead letters
        foreign = {place for place in stage.odd if place.topic in told_by_nobody}
        scope = replace(await scope_of(log, self._topics, settled=True), foreign=foreign)
        report = await verify(log, scope, self._clock)
        called = sum(map(self._mix.is_called, range(self._ledger.count)))
        told, uncounted = shown(called, self._receiver), await self._recount(log)
        times, callers = (load_seconds, started, drained), self._callers
        seen = noticed(self._ledger.met, self._struck)
        asked = {
            "answered": callers.answered,
            "asked again": len(self._ledger.met),
            "in an upgrade": len(seen),
            "differ": len(callers.wrong),
        }
        return Outcome(
            self._ledger,
            self._struck,
            report,
            stage.crashes,
            stage.absences,
            *times,
            told,
            tuple(untold),
            uncounted,
            asked,
            (*callers.wrong, *(one.what for one in seen)),
            tuple(stage.deceived),
        )

    async def _recount(self, log: Log) -> list[str]:
        """Once the sinks have all that Kafka has."""
        store, topics = self._stage.store, self._topics
        if store is None:
            return []
        self._say(f"recounting what the sinks stored in {store.about}")
        homes = [TopicPartition(topics.job_events, home) for home in range(topics.settings.home_partitions)]
        consumer, admin = await log.consumer(client_id="chaos-recount"), await log.admin()
        try:

            async def behind() -> int:
                read = await admin.group_offsets(group_of("sink", topics.settings.prefix))
                ends = await consumer.end_offsets(homes)
                return sum(end - read.get(home, 0) for home, end in ends.items())

            if left := await self._until_still(behind, _SUPERVISE_SECONDS):
                return [f"{left} events were not counted, nor any of them in {STALL_SECONDS:.0f} s"]
        finally:
            await consumer.close()
            await admin.close()
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(store.url)
        try:
            sums = await client["tutti"]["totals"].find().to_list()
        finally:
            await client.close()
        return differences(await recounted(log, topics), counted(sums))

    async def _faults(self) -> None:
        """Whole cycles until all jobs are sent; at least one."""
        await self._warm_up()
        while True:
            for fault in cycle(
                self._stage.services,
                len(self._stage.cluster.simulators),
                self._options.durations,
                self._random,
                together=self._options.together,
                brokers=self._options.brokers,
                only=self._options.only,
            ):
                await self._strike(fault)
            if self._ledger.count >= self._options.jobs:
                return

    async def _warm_up(self) -> None:
        """Until results come steadily."""
        await self._clock.sleep(self._options.durations.warm_up)
        target = min(self._options.jobs // 20, 500)
        while self._ledger.count - len(self._ledger.open) < target:
            await self._clock.sleep(_LOOK_SECONDS)

    async def _strike(self, fault: Fault) -> None:
        at = self._clock.monotonic()
        in_flight = self._ledger.in_flight(at)
        await asyncio.to_thread(self._stage.strike, fault)
        over = self._clock.monotonic()
        give_up = over + PATIENCE_SECONDS
        while in_flight & self._ledger.open and self._clock.monotonic() < give_up:
            await self._clock.sleep(_LOOK_SECONDS)
        end = None if in_flight & self._ledger.open else self._clock.monotonic()
        await self._clock.sleep(over + self._options.durations.watch - self._clock.monotonic())
        self._struck.append(Struck(fault, at, over, self._clock.monotonic(), end))
        state = "not all ended" if end is None else f"ended after {end - at:.1f} s"
        closed = self._ledger.count - len(self._ledger.open)
        self._say(f"{fault}: {len(in_flight)} in flight, {state}; {closed} of {self._ledger.count} jobs ended")

    async def _supervise(self) -> None:
        while True:
            await self._clock.sleep(_SUPERVISE_SECONDS)
            await asyncio.to_thread(self._stage.supervise)

    async def _drain(self) -> None:
        async def unanswered() -> int:
            return len(self._ledger.open)

        await self._until_still(unanswered, _LOOK_SECONDS)

    async def _until_still(self, left: Callable[[], Awaitable[int]], every: float) -> int:
        """What is left when it is none, or has become no less for `STALL_SECONDS`; looked at so often."""
        least, since = inf, self._clock.monotonic()
        while (now := await left()) and self._clock.monotonic() - since < STALL_SECONDS:
            if now < least:
                least, since = now, self._clock.monotonic()
            await self._clock.sleep(every)
        return now


async def _unless_broken(course: Coroutine[Any, Any, None], *background: asyncio.Task[None]) -> None:
    """Run `course` to its end; raise what ended a task in the background, since nothing can be shown without it."""
    running = asyncio.create_task(course)
    try:
        await asyncio.wait([running, *background], return_when=asyncio.FIRST_COMPLETED)
        for task in background:
            if task.done():
                task.result()
        await running
    finally:
        await ended(running)
