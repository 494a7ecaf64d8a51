"""The appender: a snapshot that is cut into several batches counts when its last part is acknowledged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.planner.draft import Draft
from services.planner.history.appender import Appender
from services.planner.state import snapshots
from services.planner.state.watermark import watermark
from shared.clock import ManualClock
from shared.errors import SendFailed
from shared.kafka.port import Message, TopicPartition
from shared.kafka.sizes import check_batch
from tests.unit.planner.desk import Desk
from tests.unit.planner.test_snapshots import chained, records

PARTITION = TopicPartition("job-events", 0)


class Writer:
    """Takes appends at `end`; the one after `most` is lost. Notes which watermark could have been committed before each but the first."""

    def __init__(self, desk: Desk, most: int) -> None:
        self.desk, self.end, self.most = desk, len(desk.history), most
        self.batches = 0
        self.passed: list[int] = []
        self.messages: list[Message] = []

    async def append(self, _: TopicPartition, messages: list[Message]) -> int:
        if self.batches:
            self.passed.append(watermark(self.desk.book, {}, self.end - 1)[0])
        self.batches += 1
        if self.batches > self.most:
            raise SendFailed
        check_batch(messages)
        self.messages += messages
        base, self.end = self.end, self.end + len(messages)
        return base


def appending(desk: Desk, most: int = 99) -> tuple[Appender, Writer]:
    writer = Writer(desk, most)
    appender = Appender(cast("Any", SimpleNamespace(writer=writer, clock=ManualClock())), PARTITION, desk.book)
    appender.expected = len(desk.history)
    return appender, writer


def with_these(desk: Desk, messages: list[Message]) -> list[tuple[int, bytes]]:
    return [*desk.history, *((offset, message.value or b"") for offset, message in enumerate(messages, len(desk.history)))]


@pytest.mark.parametrize(("char", "count"), [("a", 118_000), ('"', 59_000)])
async def test_facts_of_more_than_a_batch_are_written_again_and_pin_nothing(char: str, count: int) -> None:
    """Of more than a megabyte: in several batches. Until the last is acknowledged a successor needs the old events, and they are kept."""
    desk = Desk()
    job = chained(desk, [char * count] * 11)
    old = desk.begins()
    round_ = Draft(0, 0.0, 0.0)
    snapshots.write(desk.book.kept_jobs, round_, job, "s")
    appender, writer = appending(desk)
    await appender.append(round_)
    assert writer.batches >= 2
    assert writer.passed == [old] * (writer.batches - 1)
    assert desk.begins() == len(desk.history)
    _, book, _ = desk.replayed(with_these(desk, records(round_))[desk.begins() :])
    assert book.jobs[job.id].facts == job.facts


async def test_a_snapshot_that_was_cut_off_counts_for_nothing() -> None:
    """The second batch is lost: the job is what its old events say, and they hold the watermark."""
    desk = Desk()
    job = chained(desk, ["a" * 100_000] * 11)
    old = desk.begins()
    round_ = Draft(0, 0.0, 0.0)
    snapshots.write(desk.book.kept_jobs, round_, job, "s")
    appender, writer = appending(desk, most=1)
    with pytest.raises(SendFailed):
        await appender.append(round_)
    assert desk.begins() == old
    _, book, _ = desk.replayed(with_these(desk, writer.messages)[old:])
    assert book.jobs[job.id].facts == job.facts
