"""Bugs planted in the planner's protocol: epochs, gaps, watermark, commits, the order of append and effects."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from services.planner.draft import Publish
from services.planner.history import recovery
from services.planner.history.appender import Appender
from services.planner.history.recovery import Replay
from services.planner.history.takeover import TakeOver
from services.planner.round import Round
from services.planner.sending.messages import of_effect
from services.planner.sending.writer import EventWriter
from services.planner.shard.home import Home
from services.planner.state import watermark as watermarks
from services.planner.state.book import Book
from shared.contracts import headers
from shared.contracts.event import JobAccepted, PlannerStarted, facts_of
from shared.errors import LogError, SendFailed
from shared.kafka.memory.memory_consumer import MemoryConsumer
from shared.kafka.port import Appended, Message
from shared.processing.outbox import Outbox
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import verified
from tests.support.cluster.mutants.mixes import CALM, CRASHES, SMALL, UNKNOWN, ZOMBIES

Patching = pytest.MonkeyPatch


def _epoch_by_generation(patching: Patching) -> None:
    """The epoch is the group's generation; whoever has an older one is stale."""

    original_init = Appender.__init__

    async def start(self: TakeOver) -> int:
        wiring = self._wiring
        generation = wiring.consumer._inner._generation  # type: ignore[attr-defined]
        event = PlannerStarted(nonce=str(generation), planner=wiring.instance)
        message = Message(self._events.topic, event.to_bytes(), None, self._number, headers.envelope(event.type))
        offset = await wiring.writer.append(self._events, [message])
        if offset < 0:
            raise SendFailed
        made = _Offset(offset)
        made.generation = generation
        return made

    class _Offset(int):
        generation: int

    def set_epoch(self: Book, value: int) -> None:
        self.__dict__["_epoch"] = value

    def get_epoch(self: Book) -> int:
        value = self.__dict__["_epoch"]
        return value.generation if isinstance(value, _Offset) else value

    def init(self: Appender, wiring: Any, partition: Any, book: Book) -> None:
        original_init(self, wiring, partition, book)
        self.expected = int(book.__dict__["_epoch"]) + 1

    def admits(self: Replay, offset: int, event: Any) -> bool:
        in_force = self._epochs.epoch
        if isinstance(event, PlannerStarted):
            self._epochs.started(int(event.nonce))
            return False
        return in_force is None or event.epoch >= in_force

    patching.setattr(TakeOver, "_start", start)
    patching.setattr(Book, "epoch", property(get_epoch, set_epoch), raising=False)
    patching.setattr(Appender, "__init__", init)
    patching.setattr(Replay, "_admits", admits)


def _a_gap_means_stop(patching: Patching) -> None:
    async def inspect(self: Appender, base: int) -> None:
        await asyncio.Event().wait()

    patching.setattr(Appender, "_inspect", inspect)


def _a_gap_means_nothing(patching: Patching) -> None:
    async def inspect(self: Appender, base: int) -> None:
        return None

    patching.setattr(Appender, "_inspect", inspect)


def offset_minus_one_is_good(patching: Patching) -> None:
    original = EventWriter.append

    async def append(self: EventWriter, partition: Any, messages: Any) -> int:
        base = await original(self, partition, messages)
        return _expected.get(partition, base) if base < 0 else base

    _expected: dict[Any, int] = {}
    original_send = Appender._send

    async def send(self: Appender, batch: Any) -> Any:
        _expected[self._partition] = self.expected
        return await original_send(self, batch)

    patching.setattr(EventWriter, "append", append)
    patching.setattr(Appender, "_send", send)


def _watermark_past_an_unpublished_result(patching: Patching) -> None:
    original = Book.ends_at

    def ends_at(self: Book, job_id: str, now: float, offset: int) -> None:
        original(self, job_id, now, offset)
        self.kept_jobs.places.pop(job_id, None)

    patching.setattr(Book, "ends_at", ends_at)


def _watermark_on_the_next_record(patching: Patching) -> None:
    original = watermarks.watermark

    def watermark(book: Book, inputs: Any, last_own: int, topic_ids: Any) -> Any:
        offset, forgettable = original(book, inputs, last_own, topic_ids)
        return (offset + 1 if offset == last_own else offset), forgettable

    patching.setattr(watermarks, "watermark", watermark)


def _watermark_past_a_record_to_be_read_again(patching: Patching) -> None:
    together = MemoryConsumer.commit

    async def commit(self: MemoryConsumer, offsets: Any) -> None:
        await together(self, {tp: o for tp, o in offsets.items() if "job-events" in tp.topic} or offsets)
        await asyncio.sleep(0.2)
        await together(self, offsets)

    patching.setattr(watermarks, "passable", lambda *_: True)
    patching.setattr(MemoryConsumer, "commit", commit)


def _commit_before_append(patching: Patching) -> None:
    original = Home._write

    async def write(self: Home, round_: Round) -> None:
        self._positions = dict(self._folded)
        await original(self, round_)

    patching.setattr(Home, "_write", write)


def append_sent_again(patching: Patching) -> None:
    original = EventWriter.append

    async def append(self: EventWriter, partition: Any, messages: Any) -> int:
        while True:
            try:
                return await original(self, partition, messages)
            except LogError:
                await asyncio.sleep(0.05)

    patching.setattr(EventWriter, "append", append)


def _round_cut_in_two(patching: Patching) -> None:
    original = EventWriter.append

    async def append(self: EventWriter, partition: Any, messages: Any) -> int:
        half = len(messages) // 2
        if not half:
            return await original(self, partition, messages)
        base = await original(self, partition, messages[:half])
        await original(self, partition, messages[half:])
        return base

    patching.setattr(EventWriter, "append", append)


def _published_before_acknowledged(patching: Patching) -> None:
    original = Home._write

    async def write(self: Home, round_: Round) -> None:
        for effect in round_.after:
            if isinstance(effect, Publish):
                self._wiring.outbox.post(of_effect(effect, self._wiring.topics), partial(self._book.published, effect.settled))
        await original(self, round_)

    patching.setattr(Home, "_write", write)


def _results_sent_once(patching: Patching) -> None:
    original = Outbox._is_settled

    def is_settled(self: Outbox, lane: Any, entry: Any, result: Any) -> bool:
        sent = Appended(entry.message.topic, 0, -1) if entry.message.topic.endswith("results") else result
        return original(self, lane, entry, sent)

    patching.setattr(Outbox, "_is_settled", is_settled)


def _asks_not_seen(patching: Patching) -> None:
    """As an older planner would read them, were it not for the version."""
    patching.setattr(recovery, "facts_of", lambda event: facts_of(event)[: 1 if isinstance(event, JobAccepted) else None])


MUTANTS: dict[str, dict[str, Any]] = {
    "epoch by generation instead of offset": {
        "patch": _epoch_by_generation,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": CALM,
    },
    "a gap always means stop": {"patch": _a_gap_means_stop, "breaks": "converges", "seed": 3, "mix": ZOMBIES},
    "a gap means nothing": {"patch": _a_gap_means_nothing, "breaks": "fenced_writer", "seed": 7, "mix": ZOMBIES},
    "offset -1 taken as good": {
        "patch": offset_minus_one_is_good,
        "breaks": "lost",
        "seed": 1,
        "mix": FaultMix(
            pause=1.5, pause_seconds=(7.0, 9.0), send_seconds=0.3, offset_unknown=0.3, only=("planner",), jobs=40, seconds=20.0
        ),
    },
    "watermark past an unpublished result": {
        "patch": _watermark_past_an_unpublished_result,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": FaultMix(lost=0.2, ack_seconds=0.4, **SMALL),
    },
    "a watermark on a record whose epoch a reader cannot know": {
        "patch": _watermark_on_the_next_record,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": CALM,
    },
    "inputs and watermark committed apart": {
        "patch": _watermark_past_a_record_to_be_read_again,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": CALM,
    },
    "commit before append": {
        "patch": _commit_before_append,
        "breaks": "offsets pass no unfinished work",
        "mix": FaultMix(ack_seconds=0.4, send_seconds=0.4, **SMALL),
    },
    "re-sent append after a new producer": {"patch": append_sent_again, "breaks": "accepted_twice", "mix": UNKNOWN},
    "asks in an acceptance passed over": {"patch": _asks_not_seen, "breaks": "asked_twice", "mix": CRASHES},
    "a round cut in two": {"patch": _round_cut_in_two, "breaks": "fenced_writer", "mix": ZOMBIES},
    "publish before the settle event is acknowledged": {"patch": _published_before_acknowledged, "breaks": verified.GIVEN, "mix": UNKNOWN},
    "results sent once": {"patch": _results_sent_once, "breaks": "result_missing", "mix": UNKNOWN, "seed": 3},
}
