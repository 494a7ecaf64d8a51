"""Reading for the page: all homes' events, nodes, credits and dead letters, without a group, as long as somebody looks.

Each sink reads all of it for itself, so each shows the whole cluster, with or without a store. Nobody looks: nothing is read, nothing held.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from services.sink.handlers import leading_epochs, read_event, read_letter
from services.sink.page.machines import Machines
from services.sink.page.overview import overview
from services.sink.page.present import ShownJobs
from services.sink.settings import SinkSettings
from shared.contracts.base import CLASSES, PriorityClass
from shared.epochs import EpochFilter
from shared.errors import LogError, Overloaded
from shared.kafka.port import Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.replay import Letter
from shared.processing.tail import Tail
from shared.scheduling.places import Pace
from shared.service import Environment
from shared.services import group_of
from shared.tasks import ended
from shared.telemetry import logs

log = logs.get(__name__)

_LETTERS_BACK, _CREDITS_BACK = 500, 1_000
MOST_LETTERS = 1_000
_LOOK_SECONDS = 2.0
_AGAIN_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
"""Between two polls that brought records: others run meanwhile."""


class Picture:
    """One reading: all that was read since somebody began to look. `boot` tells two of them apart."""

    def __init__(self, env: Environment, settings: SinkSettings, boot: str) -> None:
        self._env, self._settings, self.boot = env, settings, boot
        self._topics, self._clock = env.topics, env.clock
        homes = env.topics.settings.home_partitions
        self.jobs = ShownJobs(settings.page_jobs, homes)
        self.machines = Machines(env.clock.monotonic())
        self.letters: deque[dict[str, Any]] = deque(maxlen=MOST_LETTERS)
        self.letters_seen = 0
        self.pace = Pace()
        self.unread: dict[PriorityClass, int] = {}
        self.trouble: str | None = None
        """What is not known, and why."""
        self._watermarks: Mapping[TopicPartition, int | None] = {}
        self._homes = [TopicPartition(env.topics.job_events, number) for number in range(homes)]
        self._epochs = {partition: EpochFilter() for partition in self._homes}
        self._hurry = asyncio.Event()
        """Set until what was there has been read."""
        self._hurry.set()
        others = [TopicPartition(env.topics.dead_letters, number) for number in range(env.topics.partitions("other"))]
        single = [TopicPartition(topic, 0) for topic in (env.topics.nodes, env.topics.credits)]
        self.tail = Tail(
            env.log, env.clock, [*self._homes, *others, *single],
            client_id=f"tutti-page-{env.instance}", handle=self._on_records, handled=self._on_handled, begin=self._begin,
            pause_seconds=_PAUSE_SECONDS, hurry=self._hurry,
        )  # fmt: skip

    async def run(self) -> None:
        """Until cancelled."""
        self._watermarks = await self._committed()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tail.run())
            group.create_task(self._look_forever())

    async def _committed(self) -> Mapping[TopicPartition, int | None]:
        """Of the planners: where each home's live jobs begin at the latest."""
        consumer = await self._env.log.consumer(client_id=f"tutti-page-watermarks-{self._env.instance}", group=self._planners)
        try:
            return await consumer.committed(self._homes)
        finally:
            await consumer.close()

    @property
    def _planners(self) -> str:
        return group_of("planner", self._topics.settings.prefix)

    def _begin(self, partition: TopicPartition, first: int, end: int) -> int:
        if partition.topic == self._topics.job_events:
            watermark = self._watermarks.get(partition)
            begin = end - self._settings.page_lookback
            return min(begin, watermark) if watermark is not None and first <= watermark <= end else begin
        if partition.topic == self._topics.nodes:
            return first
        return end - (_CREDITS_BACK if partition.topic == self._topics.credits else _LETTERS_BACK)

    # Records

    def _on_handled(self) -> None:
        if self._hurry.is_set() and self.tail.caught_up():
            self._hurry.clear()

    def _on_records(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        if partition.topic == self._topics.job_events:
            epochs = self._epochs[partition]
            if epochs.epoch is None:
                epochs.begin(leading_epochs(list(records)))
            fold_each("sink", records, partial(self._on_event, epochs))
        else:
            fold_each("sink", records, self._on_other)

    def _on_event(self, epochs: EpochFilter, record: Record) -> None:
        valid = read_event(record, epochs)
        if valid is None:
            return
        caught_up, starts = self.tail.caught_up(), self.jobs.starts
        # Two clocks are compared only for what was there before this reader, and only for a curve.
        self.jobs.event(valid.event, self._clock.wall() if caught_up else valid.at_ms / 1000)
        if caught_up:
            self.pace.news += self.jobs.starts - starts

    def _on_other(self, record: Record) -> None:
        now = self._clock.monotonic()
        if record.topic == self._topics.nodes:
            self.machines.on_node(record, now)
        elif record.topic == self._topics.credits:
            self.machines.on_credits(record, now)
        else:
            letter = Letter(f"{record.partition}:{record.offset}", read_letter(record))
            self.letters_seen += 1
            self.letters.append(described(letter))

    # What lies in jobs.*, and how fast it goes

    async def _look_forever(self) -> None:
        places = {
            TopicPartition(self._topics.jobs(each), number): each
            for each in CLASSES
            for number in range(self._topics.settings.home_partitions)
        }
        consumer = await self._env.log.consumer(client_id=f"tutti-page-ends-{self._env.instance}", committed_only=True)
        admin = await self._env.log.admin()
        try:
            while True:
                try:
                    ends = await consumer.end_offsets(list(places))
                    firsts = await consumer.beginning_offsets(list(places))
                    taken = await admin.group_offsets(self._planners)
                except LogError as error:
                    self.trouble = error.message
                else:
                    self.trouble = None
                    unread = dict.fromkeys(CLASSES, 0)
                    for place, each in places.items():
                        unread[each] += max(0, ends[place] - taken.get(place, firsts[place]))
                    self.unread = unread
                waits = any(self.unread.values()) or any(key[0] == "step" and key[3] == "waiting" for key in self.jobs.counts)
                self.pace.look(self._clock.monotonic(), busy=waits)
                await self._clock.sleep(_LOOK_SECONDS)
        finally:
            await admin.close()
            await consumer.close()

    # What is shown

    def parts(self) -> dict[str, Any]:
        """Name → what is shown now, ready for JSON."""
        now = self._clock.monotonic()
        shown = overview(self.jobs, self.unread, self.pace, self.machines.places(now), self._clock.wall())
        shown |= {"ready": self.tail.caught_up(), "read": self._read_share(), "trouble": self.trouble, "letters": self.letters_seen}
        return {"overview": shown, "nodes": self.machines.rows(now), "gains": {"rows": self.jobs.gains()}}

    def _read_share(self) -> float:
        """Of the events that were there when reading began."""
        begun = {home: self._begin(home, 0, end) for home, end in self.tail.ends.items() if home in self._epochs}
        todo = sum(max(0, self.tail.ends[home] - max(0, begin)) for home, begin in begun.items())
        done = sum(min(self.tail.positions.get(home, 0), self.tail.ends[home]) - max(0, begin) for home, begin in begun.items())
        return 1.0 if todo <= 0 else round(min(1.0, max(0.0, done / todo)), 3)


def described(letter: Letter) -> dict[str, Any]:
    """Without what it carries."""
    content = letter.content
    return {
        "id": letter.id, "at": content.at, "topic": content.topic, "partition": content.partition, "offset": content.offset,
        "service": content.service, "code": content.code, "reason": content.reason, "whole": not content.truncated,
    }  # fmt: skip


class Watching:
    """Holds a Picture as long as somebody looks, and a while longer."""

    def __init__(self, env: Environment, settings: SinkSettings) -> None:
        self._env, self._settings = env, settings
        self._viewers = 0
        self._seen_at = 0.0
        self._wanted = asyncio.Event()
        self._over = False
        self._shown: tuple[float, dict[str, Any]] | None = None
        self.closing = asyncio.Event()
        """Set: streams end, none begins."""
        self.picture: Picture | None = None
        """Another one when reading had to begin anew: who looks at the old one is to look again."""
        env.topics_made_anew.append(self._begin_anew)

    def _begin_anew(self, _: str) -> None:
        self._over = True

    @contextmanager
    def looking(self) -> Iterator[Picture]:
        """Somebody looks. Raises Overloaded."""
        if self._viewers >= self._settings.page_viewers or self.closing.is_set():
            raise Overloaded("too many look at this page; try again later", retry_after_seconds=5.0)
        self._viewers += 1
        try:
            yield self.seen()
        finally:
            self._viewers -= 1
            self._seen_at = self._env.clock.monotonic()

    def seen(self) -> Picture:
        """Somebody asks; reading begins if it has not."""
        self._seen_at = self._env.clock.monotonic()
        if self.picture is None:
            self.picture = self._new()
            self._wanted.set()
        return self.picture

    def _new(self) -> Picture:
        return Picture(self._env, self._settings, f"{self._env.random.getrandbits(48):012x}")

    def parts(self, picture: Picture) -> dict[str, Any]:
        """What all viewers see, made at most twice a frame."""
        now = self._env.clock.monotonic()
        if self._shown is None or now - self._shown[0] >= self._settings.page_seconds / 2:
            self._shown = now, picture.parts()
        return self._shown[1]

    async def run(self) -> None:
        """Read when somebody looks, for ever. What fails here is the page's affair alone."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._over = False
            reading = asyncio.create_task(self._read())
            try:
                while not self._over and (self._viewers or self._env.clock.monotonic() - self._seen_at < self._settings.page_idle_seconds):
                    await self._env.clock.sleep(_LOOK_SECONDS)
            finally:
                await ended(reading)
                self.picture = self._shown = None

    async def _read(self) -> None:
        while self.picture is not None:
            try:
                await self.picture.run()
            except Exception as error:
                log.failure("page_reading_failed", error)
                self.picture.trouble = "reading failed, and begins again"
                await self._env.clock.sleep(_AGAIN_SECONDS)
                self.picture, self._shown = self._new(), None

    async def drain(self) -> None:
        """Streams end."""
        self.closing.set()
