"""Reading: from Kafka into the checker.

A running cluster moves while it is read, so ends are noted in an order in which an effect is never noted without its cause:
committed offsets, then jobs, delays and results, then `job-events`, then outcomes and dead letters. Everything is read up to these ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from infra.verify.checker import CheckBounds, Checker, Scope
from infra.verify.report import Report
from shared.clock import Clock
from shared.contracts import headers
from shared.epochs import epoch_of
from shared.errors import LogUnavailable
from shared.kafka.port import Admin, Consumer, Log, Record, TopicPartition, Unreadable
from shared.processing.tail import stretches
from shared.services import group_of
from shared.topics import DELAY_TIERS, Topics

"""With the cluster's prefix before them."""
STALL_SECONDS = 30.0
"""Nothing read for so long, and more is there: Kafka is away."""
_LOOK_AHEAD = 5_000
"""Records that are looked at to learn the epoch in force where the beginning of the log is gone."""

Visit = Callable[[Record], None]
Say = Callable[[int, int], None]
"""Told (records read, records in all) now and then."""


@dataclass(frozen=True, slots=True)
class ReadRange:
    """What is read of one partition: [start, end)."""

    start: int
    end: int
    beginning: int
    """Lowest offset that Kafka still holds."""


class TopicReader:
    """One run over one cluster. Raises LogError kinds when Kafka is away."""

    def __init__(self, consumer: Consumer, admin: Admin, scope: Scope, clock: Clock, say: Say) -> None:
        self._consumer, self._admin, self._scope, self._clock, self._say = consumer, admin, scope, clock, say
        self._checker = Checker(scope)
        self._topics = scope.topics
        self._spans: dict[TopicPartition, ReadRange] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._waiting: dict[TopicPartition, int] = {}
        self._read = 0

    async def run(self) -> Report:
        """Read everything, judge it."""
        await self._look()
        checker = self._checker
        await self._whole(checker)
        for home in range(self._topics.settings.home_partitions):
            await self._home(checker, home)
        checker.finish()
        return checker.report

    async def _look(self) -> None:
        """Note what there is, causes after effects."""
        topics = self._topics
        prefix = topics.settings.prefix
        self._committed = await self._admin.group_offsets(group_of("planner", prefix))
        self._waiting = await self._admin.group_offsets(group_of("delay", prefix))
        since = self._scope.since - self._scope.window_seconds
        await self._note(topics.all_jobs(), "home", since)
        await self._note([topics.delay(tier) for tier, _ in DELAY_TIERS], "other", 0)
        await self._note([topics.results], "other", since)
        await self._note([topics.job_events], "home", since)
        await self._note([topics.outcomes], "home", since)
        await self._note([topics.dead_letters], "other", 0)

    async def _note(self, names: Iterable[str], count: Literal["home", "other"], since: float) -> None:
        partitions = [TopicPartition(name, n) for name in names for n in range(self._topics.partitions(count))]
        beginnings = await self._consumer.beginning_offsets(partitions)
        starts = dict(beginnings)
        if since > 0:
            starts = {p: await self._consumer.offset_at(p, int(since * 1000)) for p in partitions}
        ends = await self._consumer.end_offsets(partitions)
        self._spans |= {p: ReadRange(max(starts[p], beginnings[p]), ends[p], beginnings[p]) for p in partitions}

    async def _whole(self, checker: Checker) -> None:
        topics = self._topics
        for partition in self._of(topics.results):
            if self._spans[partition].beginning > 0:
                checker.results_begin(partition.partition, await self._first_instant(partition))
        await self._each(self._of(topics.results), checker.on_result)
        await self._each(self._of(topics.dead_letters), checker.on_dead_letter)
        for tier, _ in DELAY_TIERS:
            for partition in self._of(topics.delay(tier)):
                self._skip(partition, self._waiting.get(partition, 0))
                await self._each([partition], checker.on_delayed)

    async def _home(self, checker: Checker, home: int) -> None:
        topics = self._topics
        events = TopicPartition(topics.job_events, home)
        outcomes = TopicPartition(topics.outcomes, home)
        jobs = [TopicPartition(topic, home) for topic in topics.all_jobs()]
        since = self._scope.since - self._scope.window_seconds
        cut = self._spans[outcomes].beginning > 0
        bounds = CheckBounds(
            home,
            epoch=await self._epoch_at_start(events),
            committed={p.topic: self._committed.get(p, 0) for p in jobs},
            watermark=self._committed.get(events, 0),
            outcomes_from=max(await self._first_instant(outcomes) if cut else 0.0, since) + (self._scope.window_seconds if cut else 0.0),
        )
        checker.begin_home(bounds)
        await self._each([events], checker.on_event)
        await self._each([outcomes], checker.on_outcome)
        await self._each(jobs, checker.on_job)
        checker.end_home()

    async def _epoch_at_start(self, events: TopicPartition) -> int | None:
        """The epoch in force where reading begins: the last PlannerStarted before it, looked for from where the first event's own
        epoch points. Where that is gone, the highest epoch up to the next PlannerStarted: a fenced planner's is always lower.
        """
        span = self._spans[events]
        if span.start >= span.end or span.start == 0:
            return None
        ahead = await self._leading_epochs(events, span)
        if not ahead:
            return None
        found: list[int] = []

        def visit(record: Record) -> None:
            if _is_start(record):
                found.append(record.offset)

        await self._range(events, max(span.beginning, min(ahead[0], span.start)), span.start, visit)
        return found[-1] if found else max(ahead)

    async def _leading_epochs(self, events: TopicPartition, span: ReadRange) -> list[int]:
        """Of the first events up to a PlannerStarted; empty when that comes first."""
        epochs: list[int] = []
        started: list[int] = []

        def visit(record: Record) -> None:
            if _is_start(record):
                started.append(record.offset)
            elif not started and (epoch := epoch_of(record.value or b"")) is not None:
                epochs.append(epoch)

        end = min(span.end, span.start + _LOOK_AHEAD)
        await self._range(events, span.start, end, visit)
        return epochs

    async def _first_instant(self, partition: TopicPartition) -> float:
        """Timestamp of the first record there is, epoch seconds; 0 when there is none."""
        span, found = self._spans[partition], list[float]()
        if span.beginning < span.end:
            await self._range(partition, span.beginning, span.beginning + 1, lambda record: found.append(record.timestamp / 1000))
        return found[0] if found else 0.0

    def _of(self, topic: str) -> list[TopicPartition]:
        return [partition for partition in self._spans if partition.topic == topic]

    def _skip(self, partition: TopicPartition, offset: int) -> None:
        span = self._spans[partition]
        self._spans[partition] = ReadRange(max(span.start, offset), span.end, span.beginning)

    async def _each(self, partitions: Sequence[TopicPartition], visit: Visit) -> None:
        for partition in partitions:
            span = self._spans[partition]
            await self._range(partition, span.start, span.end, visit)

    async def _range(self, partition: TopicPartition, start: int, end: int, visit: Visit) -> None:
        """Visit the records of [start, end). At least one where only one is asked for."""
        total = sum(max(0, span.end - span.start) for span in self._spans.values())
        heard = self._clock.monotonic()
        async for records in stretches(self._consumer, {partition: (start, end)}):
            for record in records:
                if isinstance(record, Unreadable) and record.shredded:
                    self._checker.report.counts.shredded += 1
                else:
                    visit(record)
            self._read += len(records)
            if records:
                heard = self._clock.monotonic()
                self._say(min(self._read, total), total)
            elif self._clock.monotonic() - heard > STALL_SECONDS:
                raise LogUnavailable(f"nothing more of {partition.topic}/{partition.partition} arrives")


def _is_start(record: Record) -> bool:
    return headers.find(record.headers, headers.TYPE) == b"planner_started"


async def verify(log: Log, scope: Scope, clock: Clock, say: Say = lambda _read, _total: None) -> Report:
    """Check a cluster. Raises LogError kinds when it cannot be read."""
    admin = await log.admin()
    try:
        consumer = await log.consumer(client_id="tutti-verify", reset="earliest", fetch_max_wait_ms=50)
        try:
            return await TopicReader(consumer, admin, scope, clock, say).run()
        finally:
            await consumer.close()
    finally:
        await admin.close()


async def scope_of(log: Log, topics: Topics, **options: float | bool) -> Scope:
    """The scope of the cluster behind `log`: its id belongs to the ids of jobs that came without one."""
    admin = await log.admin()
    try:
        chosen: Mapping[str, float | bool] = options
        return Scope(topics, await admin.cluster_id(), **chosen)  # type: ignore[arg-type]
    finally:
        await admin.close()
