"""Outbox and notices, on the in-memory log with its faults, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from services.planner.sending.notices import is_notice
from services.planner.sending.outbox import Outbox
from shared.clock import LoopClock
from shared.contracts import headers
from shared.contracts.base import RECORD_BYTES
from shared.kafka.memory import MemoryLog
from shared.kafka.memory_faults import Fate
from shared.kafka.port import Message, NewTopic, TopicPartition
from tests.support.virtual_loop import run, within

RESULTS, REPLIES, CONTROLS = (TopicPartition(topic, 0) for topic in ("results", "replies", "controls"))


def message(text: str, topic: str = "results", partition: int = 0, kind: str = "result") -> Message:
    return Message(topic, text.encode(), b"key", partition, headers.envelope(kind))


def final(text: str, topic: str = "replies", partition: int = 0) -> Message:
    return message(text, topic, partition, "final")


class Desk:
    """A log, an outbox that drains, and what it has written."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.log = MemoryLog(self.clock)
        self.log.create([NewTopic(topic, 2, 1, {}) for topic in ("results", "replies", "controls")])
        self.outbox: Outbox

    async def open(self) -> None:
        producer = await self.log.producer(client_id="test")
        self.outbox = Outbox(self.log, producer, self.clock, "test", own=["results", "replies", "controls"], bound=10)

    def written(self, partition: TopicPartition = RESULTS) -> list[str]:
        return [(record.value or b"").decode() for record in self.log.existing(partition).records]

    async def idle(self, seconds: float = 1_000.0) -> float:
        """Wait until everything is out; the virtual seconds it took."""
        started = self.clock.monotonic()
        await asyncio.wait_for(self.outbox.idle(), seconds)
        return self.clock.monotonic() - started


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    here = Desk()
    await here.open()
    task = asyncio.create_task(here.outbox.run())
    yield here
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


simulated = within(desk)


@simulated
async def test_messages_of_a_partition_keep_their_order(here: Desk) -> None:
    """In the order in which they were posted, one parcel or many."""
    for start in range(0, 30, 3):
        here.outbox.post([message(str(number)) for number in range(start, start + 3)])
    await here.idle()
    assert here.written() == [str(number) for number in range(30)]


@simulated
async def test_what_was_not_acknowledged_is_sent_again(here: Desk) -> None:
    """Batches fail in different ways; nothing is lost, each parcel is done once (a record may be doubled: that is harmless)."""
    done: list[str] = []
    for number in range(20):
        if number % 3 == 0:
            here.log.faults.script(RESULTS, Fate.LOST, Fate.UNACKNOWLEDGED, Fate.LOST)
        here.outbox.post([message(str(number))], partial(done.append, str(number)))
        await here.clock.sleep(0.3)
    await here.idle()
    assert set(here.written()) == set(done)
    assert sorted(done, key=int) == [str(number) for number in range(20)]


@simulated
async def test_what_fails_delays_nobody(here: Desk) -> None:
    """Another partition's messages go out meanwhile."""
    here.log.faults.script(RESULTS, *[Fate.LOST] * 100)
    here.outbox.post([message("stuck")])
    await here.clock.sleep(5.0)
    here.outbox.post([message("free", partition=1)])
    await here.clock.sleep(0.1)
    assert here.written(TopicPartition("results", 1)) == ["free"]
    await here.idle()
    assert here.written() == ["stuck"]


@simulated
async def test_done_is_called_once_all_is_acknowledged(here: Desk) -> None:
    """Not before the last message of the parcel."""
    here.log.faults.script(TopicPartition("results", 1), Fate.LOST)
    done: list[float] = []
    here.outbox.post([message("a"), message("b", partition=1)], lambda: done.append(here.clock.monotonic()))
    await here.clock.sleep(0.2)
    assert (here.written(), done) == (["a"], [])
    await here.idle()
    assert len(done) == 1
    assert here.written() == ["a"]
    assert here.written(TopicPartition("results", 1)) == ["b"]


@simulated
async def test_a_message_that_can_never_be_sent_blocks_nobody(here: Desk) -> None:
    """It is given up, its parcel counts as done, and the others go on."""
    done: list[str] = []
    here.outbox.post([message("x" * (RECORD_BYTES + 1)), message("a")], lambda: done.append("first"))
    here.outbox.post([message("b")], lambda: done.append("second"))
    await here.idle()
    assert here.written() == ["a", "b"]
    assert done == ["first", "second"]


@simulated
async def test_an_outage_loses_nothing(here: Desk) -> None:
    """Results, stops and finals go out when Kafka is back within the callers' patience."""
    here.log.go_away("fails")
    here.outbox.post([message("result"), final("final"), message("stop", "controls", 0, "stop")])
    await here.clock.sleep(60.0)
    here.log.come_back()
    await here.idle()
    assert (here.written(), here.written(REPLIES), here.written(CONTROLS)) == (["result"], ["final"], ["stop"])


@simulated
async def test_deliver_waits_for_the_acknowledgement(here: Desk) -> None:
    """However long that takes; but never for a final, whose address may be nonsense."""
    here.log.faults.script(RESULTS, Fate.LOST, Fate.LOST)
    await here.outbox.deliver([message("dead letter"), final("refused", topic="replies.nonesuch")])
    assert here.written() == ["dead letter"]
    assert here.clock.monotonic() < 5.0


@simulated
async def test_a_home_waits_when_too_much_is_waiting(here: Desk) -> None:
    """The bound is the outbox's; there is room again once messages are acknowledged."""
    here.log.go_away("waits")
    here.outbox.post([message(str(number)) for number in range(10)])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(here.outbox.room(), 5.0)
    here.log.come_back()
    await asyncio.wait_for(here.outbox.room(), 5.0)


# Notices


@simulated
async def test_a_reply_address_that_does_not_exist_delays_nobody(here: Desk) -> None:
    """Neither results nor the finals of others; the job counts as published by its result. After a while the final is given up."""
    done: list[float] = []
    for number in range(20):
        bad = final("lost", topic="replies.nonesuch")
        here.outbox.post([message(str(number)), bad, final(str(number))], lambda: done.append(here.clock.monotonic()))
    await here.clock.sleep(0.3)
    assert here.written() == here.written(REPLIES) == [str(number) for number in range(20)]
    assert len(done) == 20
    assert max(done) < 0.2
    assert 110.0 < await here.idle() < 130.0


@simulated
async def test_new_notices_pass_those_that_fail(here: Desk) -> None:
    """Of one topic: a partition that is gone, and one that is there."""
    here.log.create([NewTopic("replies.mine", 1, 1, {})])
    here.outbox.post([final("gone", "replies.mine", 9)])
    await here.clock.sleep(10.0)
    here.outbox.post([final("here", "replies.mine", 0)])
    await here.clock.sleep(0.6)
    assert here.written(TopicPartition("replies.mine", 0)) == ["here"]


@simulated
async def test_a_stop_to_a_mailbox_that_is_gone_delays_no_other(here: Desk) -> None:
    """A stop to a living node arrives within 100 ms (law 9)."""
    here.outbox.post([message("gone", "controls", 99, "stop")])
    await here.clock.sleep(10.0)
    here.outbox.post([message("urgent", "controls", 0, "stop")])
    await here.clock.sleep(0.1)
    assert here.written(CONTROLS) == ["urgent"]


@simulated
async def test_notices_are_bounded_in_topics(here: Desk) -> None:
    """Callers may name any topic under `replies.`; only so many fail at once, and tutti's own still work."""
    for number in range(100):
        here.outbox.post([final("lost", topic=f"replies.{number}")])
    assert len(here.outbox._notices._lanes) == 32
    await here.idle()
    here.outbox.post([final("here")])
    await here.idle()
    assert here.written(REPLIES) == ["here"]


@pytest.mark.parametrize("topic", ["replies", "replies.mine"])
def test_a_lost_final_is_sent_again(topic: str) -> None:
    """To our own topic and to a caller's: a lost record is no reason to keep anybody waiting."""

    async def body() -> None:
        async with desk() as here:
            here.log.create([NewTopic("replies.mine", 1, 1, {})])
            where = TopicPartition(topic, 0)
            here.log.faults.script(where, Fate.LOST, Fate.LOST)
            here.outbox.post([final("here", topic)])
            assert await here.idle() < 3.0
            assert here.written(where) == ["here"]

    run(body())


@pytest.mark.parametrize(("kind", "notice"), [("final", True), ("stop", False), ("result", False), ("step", False)])
def test_what_is_a_notice(kind: str, notice: bool) -> None:
    """Only finals: nothing depends on them."""
    assert is_notice(message("x", kind=kind)) is notice
    assert not is_notice(Message("results", b"x"))


@simulated
async def test_what_waits_is_dropped_when_the_process_ends(here: Desk) -> None:
    """Nothing hangs, nothing is left running."""
    here.log.go_away("waits")
    here.outbox.post([message("a"), final("b"), final("c", "replies.nonesuch")])
    await here.clock.sleep(0.1)
    await here.outbox._notices.close()
    assert here.outbox._notices._lanes == {}


def test_the_stand_in_is_virtual() -> None:
    """Minutes of these tests take no time."""

    async def body() -> Any:
        async with desk() as here:
            await here.clock.sleep(1e6)
            return here.clock.monotonic()

    assert run(body()) == pytest.approx(1e6)
