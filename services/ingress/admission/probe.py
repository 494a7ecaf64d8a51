"""BacklogProbe: once a second the ends of `jobs.*` and the planners' committed offsets: the backlog's measure, and a sign of life of Kafka.

An end lies in front of an open transaction: what is not committed waits for nobody here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.ingress.admission.backlog import Backlog, Place
from shared.clock import Clock
from shared.contracts.base import CLASSES
from shared.errors import LogError
from shared.kafka.port import Admin, Consumer, Log, TopicPartition
from shared.service import kafka_silence
from shared.services import group_of
from shared.telemetry import logs, metrics
from shared.topics import Topics

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
