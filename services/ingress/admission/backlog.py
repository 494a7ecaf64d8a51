"""BacklogProbe: once a second the ends of `jobs.*` and the planners' committed offsets: the backlog's measure, and a sign of life of Kafka.

An end lies in front of an open transaction: what is not committed waits for nobody here.

Backlog: can a deadline be met? An estimate from the measured settle rate and what waits before a new job. Pure; time is passed in.

    waiting of a class = unread (end offsets of jobs.<class> - what planners took) + live (accepted, not settled)
    wait of a new job  = waiting of its class and of more urgent ones / jobs settled a second while there was work

What planners took is known from their events, and from their group's committed offsets: these know it also for what was taken before
this instance began to read, and for records that never become a job (cancels, dead letters, repeated ids).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shared.clock import Clock
from shared.contracts.base import CLASSES, PriorityClass
from shared.errors import LogError
from shared.kafka.port import Admin, Consumer, Log, TopicPartition
from shared.scheduling.places import Pace
from shared.service import kafka_silence
from shared.services import group_of
from shared.telemetry import logs, metrics
from shared.topics import Topics

_UNKNOWN_SECONDS = 60.0
"""When a class is full and nothing is known of the rate."""

Place = tuple[PriorityClass, int]
"""A partition of `jobs.<class>`."""


class Backlog:
    """Counts jobs per class, and the pace at which they end."""

    def __init__(self) -> None:
        self._live = dict.fromkeys(CLASSES, 0)
        self._unread = dict.fromkeys(CLASSES, 0)
        self._next: dict[Place, int] = {}
        self._ends: Mapping[Place, int] = {}
        self.pace = Pace()
        """Of jobs' ends."""

    def on_accepted(self, priority_class: PriorityClass, partition: int | None, offset: int | None) -> None:
        """A planner took a job that lay at `offset` of its jobs topic."""
        self._live[priority_class] += 1
        if partition is not None and offset is not None:
            place = (priority_class, partition)
            self._next[place] = max(self._next.get(place, 0), offset + 1)

    def on_settled(self, priority_class: PriorityClass) -> None:
        """A job ended."""
        self.pace.news += 1
        self._live[priority_class] = max(0, self._live[priority_class] - 1)

    def observe(self, ends: Mapping[Place, int], now: float, taken: Mapping[Place, int] | None = None) -> None:
        """End offsets of the jobs topics, read at `now` (monotonic seconds), and the next offsets that planners will take.

        Where these are not known, what lay there before the first look counts as taken.
        """
        unread = dict.fromkeys(CLASSES, 0)
        for place, end in ends.items():
            before = self._next.get(place)
            known = None if taken is None else taken.get(place)
            following = self._next[place] = max((offset for offset in (before, known) if offset is not None), default=end)
            unread[place[0]] += max(0, end - following)
        self._unread, self._ends = unread, ends
        self.pace.look(now, busy=any(self.waiting(c) for c in CLASSES))

    def unread(self, priority_class: PriorityClass) -> int:
        """Jobs of the class that no planner has taken yet."""
        return self._unread[priority_class]

    def unread_before(self, priority_class: PriorityClass, partition: int, offset: int | None) -> int:
        """Of them, about how many are taken before the one that lies there: as many of each partition. All, where it is not known."""
        if offset is None:
            return self._unread[priority_class]
        own = max(0, offset - self._next.get((priority_class, partition), offset))
        lie = (
            end - self._next.get(place, end) for place, end in self._ends.items() if place[0] is priority_class and place[1] != partition
        )
        return own + sum(min(own, max(0, unread)) for unread in lie)

    def waiting(self, priority_class: PriorityClass) -> int:
        """Jobs of the class that have not ended, in Kafka or with a planner."""
        return self._live[priority_class] + self._unread[priority_class]

    @property
    def settled_per_second(self) -> float | None:
        """Measured capacity; None while too little is known."""
        return self.pace.per_second

    def wait_seconds(self, priority_class: PriorityClass) -> float | None:
        """Estimated wait of a new job: what is as urgent or more, at the measured rate. None: unknown."""
        rate = self.settled_per_second
        if rate is None:
            return None
        ahead = sum(self.waiting(c) for c in CLASSES[: CLASSES.index(priority_class) + 1])
        return ahead / rate

    def retry_after_seconds(self, priority_class: PriorityClass, bound_seconds: float, most_jobs: int | None = None) -> float | None:
        """None: admit. Else a new job would wait longer than `bound_seconds`, or behind more than `most_jobs` of its class; this is
        when it is worth trying again.
        """
        wait = self.wait_seconds(priority_class)
        if wait is not None and wait > bound_seconds:
            return max(1.0, wait - bound_seconds)
        surplus = 0 if most_jobs is None else self.waiting(priority_class) - most_jobs
        if surplus < 0 or most_jobs is None:
            return None
        rate = self.settled_per_second
        return _UNKNOWN_SECONDS if not rate else max(1.0, (surplus + 1) / rate)


_log = logs.get(__name__)
_SILENT_PROBES = 5.0
"""Periods without an answer after which Kafka counts as away."""


class BacklogProbe:
    """Feeds the backlog for ever."""

    def __init__(self, log: Log, clock: Clock, topics: Topics, instance: str, *, backlog: Backlog, seconds: float) -> None:
        self._log = log
        self._clock = clock
        self._client_id = f"tutti-ingress-probe-{instance}"
        self._group = group_of("planner", topics.settings.prefix)
        self._backlog = backlog
        self._seconds = seconds
        self._answered_at: float | None = None
        self._begins: dict[TopicPartition, int] = {}
        self._committed: Mapping[TopicPartition, int] | None = None
        self._asked = False
        """The planners' positions have been asked for once: only now is it known what lay there before."""
        self._admin: Admin | None = None
        self._topics = topics
        self._all: dict[TopicPartition, Place] = {
            TopicPartition(topics.jobs(priority_class), number): (priority_class, number)
            for priority_class in CLASSES
            for number in range(topics.settings.home_partitions)
        }

    @property
    def silence(self) -> tuple[str, ...]:
        """For readiness: that Kafka does not answer, yet or lately."""
        return kafka_silence(self._answered_at, self._clock.monotonic(), _SILENT_PROBES * self._seconds)

    async def run(self) -> None:
        """Two questions that do not wait for each other: a cold group coordinator must not look like Kafka's absence."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_ends())
            group.create_task(self._watch_planners())

    async def _watch_ends(self) -> None:
        consumer = await self._log.consumer(client_id=self._client_id, committed_only=True)
        try:
            while True:
                try:
                    await self._look(consumer)
                except LogError as error:
                    _log.warning("probe_failed", reason=error.message)
                await self._clock.sleep(self._seconds)
        finally:
            await consumer.close()

    async def _look(self, consumer: Consumer) -> None:
        missing = self._topics.missing  # what waits in the others is known all the same
        places = {partition: place for partition, place in self._all.items() if partition.topic not in missing}
        new = [partition for partition in places if partition not in self._begins]
        self._begins.update(await consumer.beginning_offsets(new) if new else {})
        ends = await consumer.end_offsets(list(places))
        now = self._answered_at = self._clock.monotonic()
        if not self._asked:
            return
        committed = self._committed
        taken = None if committed is None else {place: committed.get(part, self._begins[part]) for part, place in places.items()}
        self._backlog.observe({places[partition]: end for partition, end in ends.items()}, now, taken)
        self._show_unread(ends, committed or {})
        for priority_class in CLASSES:
            metrics.BACKLOG_JOBS.labels(priority_class.value).set(self._backlog.waiting(priority_class))
            metrics.BACKLOG_WAIT_SECONDS.labels(priority_class.value).set(self._backlog.wait_seconds(priority_class) or 0.0)

    def _show_unread(self, ends: Mapping[TopicPartition, int], committed: Mapping[TopicPartition, int]) -> None:
        unread = dict.fromkeys(CLASSES, 0)
        for partition, end in ends.items():
            unread[self._all[partition][0]] += max(0, end - committed.get(partition, self._begins[partition]))
        for priority_class, count in unread.items():
            metrics.JOBS_UNREAD.labels(priority_class.value).set(count)

    async def _watch_planners(self) -> None:
        """The next offsets that planners will take; where they never committed, from the beginning."""
        try:
            while True:
                try:
                    self._admin = self._admin or await self._log.admin()
                    self._committed = await self._admin.group_offsets(self._group)
                except LogError as error:
                    _log.warning("planner_positions_unknown", reason=error.message)
                    await self._forget_admin()
                self._asked = True
                await self._clock.sleep(self._seconds)
        finally:
            await self._forget_admin()

    async def _forget_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
