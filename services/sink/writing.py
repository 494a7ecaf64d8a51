"""Writer: what the windows hold becomes one write, and is finished once the store has it. Nothing of it is read on meanwhile.

A write that the store does not take is written again, ever more slowly; its records stay unfinished, so the windows fill, the partitions
are paused, and Kafka keeps what comes. Of a partition that has gone to another sink the rest is harmless: he writes the same.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from services.sink.fold import HomeFold
from services.sink.gauges import Gauges
from services.sink.handlers import Valid, leading_epochs, read_announcement, read_event, read_letter
from services.sink.others import keep_act, keep_letter, keep_node
from services.sink.port import Begun, Store, Writes
from services.sink.settings import SinkSettings
from services.sink.traces import Traces
from shared.audit import home_name
from shared.clock import Clock, within
from shared.epochs import EpochFilter
from shared.errors import InvalidInput, StoreAway
from shared.kafka.port import Record
from shared.processing.folding import fold_each, pass_over
from shared.processing.intake import Intake
from shared.processing.tries import Tries, read
from shared.processing.window import Window
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

T = TypeVar("T")

LOOK_SECONDS = 10.0
"""Of a store to which nothing is written: so soon /readyz says that it is away."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0


class _Reading:
    """A home since its window began."""

    def __init__(self, window: Window, begun: Begun, fold: HomeFold) -> None:
        self.window, self.fold, self.epochs = window, fold, EpochFilter(begun.epoch)


class _Gone(Exception):
    """The partitions have gone to others."""


class Writer:
    """`wake`: set when records have come."""

    def __init__(
        self, intake: Intake, store: Store, gauges: Gauges, traces: Traces | None, *, topics: Topics, settings: SinkSettings, clock: Clock,
        wake: asyncio.Event,
    ) -> None:  # fmt: skip
        self._intake, self._store, self._gauges, self._traces, self._topics = intake, store, gauges, traces, topics
        self._settings, self._clock, self._wake = settings, clock, wake
        self._homes: dict[int, _Reading] = {}
        self._prepared = False
        self.tries = Tries()
        self.trouble: str | None = None
        """Why nothing is written, as far as the store goes."""

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            if not await within(LOOK_SECONDS if self._prepared else FIRST_PAUSE_SECONDS, self._wake.wait()):
                await self._look()
            self._wake.clear()
            with self.tries.chore("writing"):
                while taken := list(self._intake.take(lambda window, record: (window, record))):
                    await self._take(taken)
                    self._intake.relieve()
            metrics.SINK_BEHIND_SECONDS.set(0)

    async def _look(self) -> None:
        """Nothing is to be written: is the store there?"""
        try:
            await (self._store.ping() if self._prepared else self._store.prepare())
        except StoreAway as error:
            self._complain(error)
        else:
            self._prepared, self.trouble = True, None

    def _complain(self, error: StoreAway) -> None:
        if self.trouble is None:
            log.warning("store_away", reason=error.message)
        self.trouble = error.message

    async def _take(self, taken: Sequence[tuple[Window, Record]]) -> None:
        by_window: dict[Window, list[Record]] = defaultdict(list)
        for window, record in taken:
            by_window[window].append(record)
        try:
            if not self._prepared:
                await self._patiently(by_window, self._store.prepare)
                self._prepared = True
            writes = Writes()
            for window, records in by_window.items():
                if window.partition.topic != self._topics.job_events:
                    self._others(records, writes)
                    continue
                with suppress(_Gone):  # of this one; the others go on
                    await self._events(window, records, writes)
            with metrics.SINK_WRITE_SECONDS.time():
                metrics.SINK_REFUSED.inc(await self._patiently(by_window, partial(self._store.write, writes)))
        except _Gone:
            return
        for window, record in taken:
            window.finish(record.offset)
        if self._traces is not None:
            self._traces.written(writes)

    async def _patiently(self, windows: Iterable[Window], call: Callable[[], Awaitable[T]]) -> T:
        """What the store answers, however long that takes. Raises _Gone."""
        pause = FIRST_PAUSE_SECONDS
        while not all(window.lost for window in windows):
            try:
                answer = await call()
            except StoreAway as error:
                self._complain(error)
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self.trouble = None
                return answer
        raise _Gone

    # Job events

    async def _events(self, window: Window, records: list[Record], writes: Writes) -> None:
        reading = await self._reading(window, records)
        if reading.epochs.epoch is None:
            reading.epochs.begin(leading_epochs(records))
        reading.fold.trim()
        valid = [one for record in records if (one := _whole(record, reading.epochs)) is not None]
        if jobs := reading.fold.unknown(valid):
            lives = await self._patiently([window], partial(self._store.lives, reading.fold.name, jobs))
            reading.fold.learn(lives, jobs, valid[0].offset)
        for one in valid:
            try:
                reading.fold.fold(one, writes)
            except Exception as error:  # a defect, ours or of what it holds, is that event's affair
                pass_over("sink", next(record for record in records if record.offset == one.offset), error)
        if valid:
            metrics.SINK_EVENTS.inc(len(valid))
            metrics.SINK_BEHIND_SECONDS.set(max(0.0, self._clock.wall() - valid[-1].at_ms / 1000))
            self._gauges.passed(reading.fold.name, valid[-1].offset + 1)

    async def _reading(self, window: Window, records: list[Record]) -> _Reading:
        number = window.partition.partition
        reading = self._homes.get(number)
        if reading is None or reading.window is not window:
            name = await self._patiently([window], partial(self._name, window))
            begun = await self._patiently([window], partial(self._store.begun, name, records[0].offset))
            fold = HomeFold(name, begun, self._settings, partial(self._gauges.heard, name))
            reading = self._homes[number] = _Reading(window, begun, fold)
        return reading

    async def _name(self, window: Window) -> str:
        identity = self._intake.identity(window.partition.topic)
        if identity is None:
            raise StoreAway("Kafka has not told yet which topic it is that is read")
        return home_name(identity, window.partition.partition)

    # What else is kept

    def _others(self, records: Sequence[Record], writes: Writes) -> None:
        fold_each("sink", records, partial(self._other, writes))

    def _other(self, writes: Writes, record: Record) -> None:
        if record.topic == self._topics.dead_letters:
            letter = read_letter(record)
            keep_letter(record, letter, writes, self._settings.dead_letter_days)
            self._gauges.letter(letter)
        elif record.topic == self._topics.acts:
            keep_act(record, writes, self._settings.acts_days)
        else:
            name, node = read_announcement(record)
            keep_node(record, name, node, writes, self._settings.node_days)
            self._gauges.announced(name, node)


def _whole(record: Record, epochs: EpochFilter) -> Valid | None:
    """Nobody owns what lies there: what is no event is passed over."""
    try:
        return read(record, partial(read_event, epochs=epochs))
    except InvalidInput as error:
        pass_over("sink", record, error)
        return None
