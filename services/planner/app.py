"""The planner's process: one group consumer, always drained into the homes; one commit for all of them; homes follow the assignment."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from services.planner.budgets.tenant_limits import LimitsByTenant
from services.planner.handlers import JobReader
from services.planner.intake.open_transactions import OpenTransactions
from services.planner.sending.writer import TURNS, EventWriter
from services.planner.settings import PlannerOptions, PlannerSettings
from services.planner.shard.commit import Commit
from services.planner.shard.home import Home
from services.planner.shard.wiring import Wiring
from shared.contracts import schedule
from shared.errors import CommitRefused, LogError
from shared.kafka.assignor import HomeAssignor
from shared.kafka.port import Consumer, Producer, TopicPartition
from shared.processing.blobs import Blobs
from shared.processing.outbox import Outbox
from shared.processing.provision import first_look
from shared.processing.registry import RegistryReader
from shared.scheduling.schedule_table import ScheduleTable
from shared.service import Environment, Readiness, kafka_silence
from shared.services import group_of
from shared.telemetry import logs, metrics

log = logs.get(__name__)

FETCH_BYTES = 512 * 1024
"""Of one partition in one fetch: a queue overshoots its bound by at most this."""
_POLL_SECONDS = 1.0
_POLL_QUEUES = 3
"""A poll brings at most so many queues of records."""
_QUIET_SECONDS = 5.0
"""Longest wait for an append in flight when partitions are taken away; half the rebalance timeout."""
_RETRY_SECONDS = 0.5
_LOOK_SECONDS = 0.5
"""Between two looks at where reading stands; as often as is committed."""
_REGISTRY_POLL_SECONDS = 0.02


@dataclass(slots=True)
class _Owned:
    home: Home
    task: asyncio.Task[None]


class Planner:
    """Implements `shared.service.Service` and `shared.kafka.port.RebalanceListener`."""

    name = "planner"

    def __init__(self, environment: Environment, options: PlannerOptions) -> None:
        self._env, self._options = environment, options
        self._topics = environment.topics
        self._homes: dict[int, _Owned] = {}
        self._schedules = ScheduleTable(self._topics.settings.capabilities, self._nudge)
        self._blobs = Blobs(environment.log, environment.clock, self._topics, service="planner", instance=environment.instance)
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._wiring: Wiring | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._polled_at: float | None = None
        self._assigned = False
        self._committed: dict[TopicPartition, int] = {}
        self._transactions = OpenTransactions(self._topics)
        environment.topics_made_anew.append(self._on_made_anew)

    # Service

    async def run(self, stop: asyncio.Event) -> None:
        """Own partitions until told to stop; then finish the rounds in flight, commit and leave the group."""
        wiring, registry = await self._connect()
        assert self._consumer is not None
        topics = [*self._topics.all_jobs(), self._topics.outcomes, self._topics.job_events]
        await self._consumer.subscribe(topics, self)
        background = [registry, *map(self._spawn, (self._poll(), self._commits(), self._send(wiring.outbox)))]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *background], return_when=asyncio.FIRST_COMPLETED)
            for task in background:
                if task.done():
                    task.result()
            await self._drain(wiring)
        finally:
            stopping.cancel()
            await self._close()

    def readiness(self) -> Readiness:
        """Ready when Kafka answers polls and every assigned partition is replayed."""
        now = self._env.clock.monotonic()
        reasons = [*kafka_silence(self._polled_at, now)]
        if not self._assigned:
            reasons.append("no assignment yet")
        left = {number: owned.home.left_because for number, owned in self._homes.items() if owned.home.left_because is not None}
        reasons += [f"partition {number} is not worked on: {why}" for number, why in sorted(left.items())]
        taking = sorted(number for number, owned in self._homes.items() if not owned.home.running and number not in left)
        if taking:
            reasons.append(f"taking over partitions {', '.join(map(str, taking))}")
        reasons += [f"partition {number}: {what}" for number, owned in sorted(self._homes.items()) for what in owned.home.tries.undone]
        reasons += self._transactions.reasons(now)
        return Readiness(not reasons, tuple(reasons))

    def asgi(self) -> None:
        """Only the shell's routes."""

    # RebalanceListener

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Begin nothing new, let appends in flight end, commit while that is still possible."""
        for owned in self._homes.values():
            owned.home.suspend()
        await self._wait_quiet()
        await self._commit()

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Keep homes that stay, drop those that left, take over new ones."""
        metrics.REBALANCES.labels(self.name).inc()
        assert self._consumer is not None
        numbers = {p.partition for p in partitions if p.topic == self._topics.job_events}
        # The events partition is assigned only so that the watermark can be committed with the inputs.
        self._consumer.pause(*(p for p in partitions if p.topic == self._topics.job_events))
        for number in [n for n in self._homes if n not in numbers]:
            await self._drop(number)
        for number in sorted(numbers):
            owned = self._homes.get(number)
            if owned is not None and not owned.task.done():
                owned.home.resume()
            else:
                self._begin(number)
        self._assigned = True

    # Homes

    def _begin(self, number: int) -> None:
        assert self._wiring is not None
        home = Home(number, self._wiring)
        self._homes[number] = _Owned(home, self._spawn(home.run()))

    async def _drop(self, number: int) -> None:
        owned = self._homes.pop(number)
        owned.task.cancel()
        await asyncio.gather(owned.task, return_exceptions=True)

    async def _wait_quiet(self) -> None:
        waits = [asyncio.create_task(owned.home.quiet()) for owned in self._homes.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=_QUIET_SECONDS)
            for task in late:
                task.cancel()

    # Loops

    async def _poll(self) -> None:
        """Drain the consumer into the homes; a partition whose queue is full is paused.

        In bounded pieces: one fetch may hold twenty thousand small jobs, which would all be unpacked into a queue for a thousand.
        """
        consumer = self._consumer
        assert consumer is not None
        look_at = self._env.clock.monotonic()
        while True:
            try:
                batches = await consumer.poll(timeout_seconds=_POLL_SECONDS, max_records=_POLL_QUEUES * self._options.queue_records)
            except LogError as error:
                log.warning("poll_failed", reason=error.message)
                await self._env.clock.sleep(_RETRY_SECONDS)
                continue
            self._polled_at = self._env.clock.monotonic()
            for partition, records in batches.items():
                owned = self._homes.get(partition.partition)
                if owned is not None and partition.topic != self._topics.job_events and owned.home.offer(partition.topic, records):
                    consumer.pause(partition)
            if self._polled_at >= look_at:
                look_at = self._polled_at + _LOOK_SECONDS
                self._look(consumer)

    def _look(self, consumer: Consumer) -> None:
        """Where reading stands and what stands in its way. Only between two polls: all that the consumer has passed was offered."""
        for partition in consumer.assignment():
            owned, reached = self._homes.get(partition.partition), consumer.reached(partition)
            if owned is not None and reached is not None and partition.topic != self._topics.job_events:
                owned.home.reached(partition.topic, reached)
        self._transactions.look(consumer.held_back(), self._env.clock.monotonic())

    async def _send(self, outbox: Outbox) -> None:
        assert self._producer is not None
        await outbox.run(self._producer, partial(self._env.log.producer, client_id=f"{self._env.instance}-callers"))

    async def _commits(self) -> None:
        while True:
            await self._env.clock.sleep(self._options.commit_interval_seconds)
            metrics.LIVE_JOBS.set(sum(owned.home.live for owned in self._homes.values()))
            await self._commit()

    async def _commit(self) -> None:
        """One OffsetCommit for all homes: every input of a number and its watermark together."""
        consumer = self._consumer
        commits: list[Commit] = []
        offsets: dict[TopicPartition, int] = {}
        for owned in self._homes.values():
            commit = owned.home.due_commit()
            if commit is not None:
                commits.append(commit)
                offsets.update(commit.offsets)
        assigned = frozenset() if consumer is None else consumer.assignment()
        offsets = {tp: offset for tp, offset in offsets.items() if tp in assigned}  # one of the topics may be gone
        if consumer is None or not offsets or offsets == self._committed:
            return
        try:
            await consumer.commit(offsets)
        except CommitRefused:
            log.warning("commit_refused", partitions=len(offsets))
            return
        except LogError as error:
            log.warning("commit_failed", reason=error.message)
            return
        self._committed = offsets
        for commit in commits:
            commit.succeeded()

    def _on_made_anew(self, topic: str) -> None:
        """Steps that waited in it are gone: what was asked for and not taken up is sent again, as after a take-over."""
        if topic in self._topics.all_steps():
            for owned in self._homes.values():
                owned.home.take_again(f"{topic} was made anew, and steps that lay in it are sent again")

    # Wiring

    async def _connect(self) -> tuple[Wiring, asyncio.Task[None]]:
        """With the task that follows the registry; whose limits hold is known before the first job is read, if there are any."""
        env = self._env
        await first_look(env.log, self._topics, env.clock)
        admin = await env.log.admin()
        cluster = await admin.cluster_id()
        await admin.close()
        tenants = LimitsByTenant()
        reader = RegistryReader(
            env.log,
            env.clock,
            self._topics,
            client_id=f"{env.instance}-registry",
            service=self.name,
            kinds={"tenant": tenants.on_entry, schedule.KIND: self._schedules.apply},
        )
        self._schedules.complete = reader.caught_up
        registry = self._spawn(reader.run())
        while not reader.caught_up() and self._topics.registry not in self._topics.missing:
            await env.clock.sleep(_REGISTRY_POLL_SECONDS)
        self._consumer = await env.log.consumer(
            client_id=f"{env.instance}-planner",
            group=group_of("planner", self._topics.settings.prefix),
            reset="earliest",
            assignor=HomeAssignor(self._topics.settings.home_partitions),
            max_partition_fetch_bytes=FETCH_BYTES,
            committed_only=True,
        )
        self._producer = await env.log.producer(client_id=f"{env.instance}-planner")
        self._wiring = Wiring(
            log=env.log,
            clock=env.clock,
            random=env.random,
            topics=self._topics,
            options=self._options,
            policy=replace(self._options.policy(), capabilities=self._topics.settings.capabilities),
            dead_letter_cap=env.settings.dead_letter_cap,
            instance=env.instance,
            reader=JobReader(cluster, self._topics),
            schedules=self._schedules,
            consumer=self._consumer,
            writer=EventWriter(self._producer, env.clock),
            # A lane's task begins a turn later: what is dispatched beside an append arrives with it, and leaves in its request.
            outbox=Outbox(env.clock, self.name, self._topics, gather_turns=TURNS - 1, relieved=self._nudge),
            rewind=self._rewind,
            unpause=self._unpause,
            still_owner=self._still_owner,
            tenants=tenants,
            blobs=self._blobs,
            spawn=self._start,
        )
        return self._wiring, registry

    def _nudge(self) -> None:
        """The schedules have changed, or the outbox has room again."""
        for owned in self._homes.values():
            owned.home.nudge()

    def _rewind(self, number: int, inputs: dict[str, int]) -> None:
        consumer = self._consumer
        assert consumer is not None
        assigned = consumer.assignment()
        for topic, offset in inputs.items():
            partition = TopicPartition(topic, number)
            if partition in assigned:
                consumer.seek(partition, offset)
                consumer.resume(partition)

    def _unpause(self, partition: TopicPartition) -> None:
        if self._consumer is not None and partition in self._consumer.assignment():
            self._consumer.resume(partition)

    async def _still_owner(self, number: int) -> bool:
        """A commit that changes nothing: it succeeds only in the current generation."""
        consumer = self._consumer
        assert consumer is not None
        events = TopicPartition(self._topics.job_events, number)
        if events not in consumer.assignment():
            return False
        try:
            committed = (await consumer.committed([events]))[events]
            if committed is not None:
                await consumer.commit({events: committed})
        except CommitRefused:
            return False
        except LogError:
            return True
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._spawn(work)

    async def _drain(self, wiring: Wiring) -> None:
        for owned in self._homes.values():
            owned.home.suspend()
        await self._wait_quiet()
        idle = asyncio.create_task(wiring.outbox.idle())
        await asyncio.wait([idle], timeout=_QUIET_SECONDS)
        idle.cancel()
        await self._commit()

    async def _close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for part in (self._blobs, self._producer, self._consumer):
            if part is not None:
                await part.close()


def build(environment: Environment, settings: PlannerSettings | None = None) -> Planner:
    """The planner, wired. Settings come from the environment when not given."""
    return Planner(environment, (settings or PlannerSettings()).planner)
