"""The outbox that all services send by, on the in-memory log with its faults, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any

import pytest

from infra.lab.virtual_loop import run, within
from shared.clock import LoopClock
from shared.contracts import headers
from shared.contracts.base import RECORD_BYTES
from shared.errors import LogUnavailable, NoDestination, NotSent, SendFailed
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import Appended, Message, NewTopic, TopicPartition
from shared.processing import outbox as outboxes
from shared.processing.lane import Sent
from shared.processing.outbox import Outbox
from shared.topics import Topics, TopicSettings

RESULTS, REPLIES, CONTROLS = (TopicPartition(topic, 0) for topic in ("results", "replies", "controls"))


def message(text: str, topic: str = "results", partition: int = 0, kind: str = "result") -> Message:
    return Message(topic, text.encode(), b"key", partition, headers.envelope(kind))


def final(text: str, topic: str = "replies", partition: int = 0) -> Message:
    return message(text, topic, partition, "final")


class Desk:
    """A log with two partitions of everything, an outbox that drains, and what it has written."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.log = MemoryLog(self.clock)
        self.topics = Topics(
            TopicSettings(work_partitions=2, replies_partitions=2, home_partitions=2, steps_partitions=2, other_partitions=2)
        )
        self.log.create([NewTopic(topic.name, 2, 1, {}) for topic in self.topics.all()])
        self.relieved: list[float] = []
        self.outbox = Outbox(self.clock, "planner", self.topics, records=10, relieved=lambda: self.relieved.append(self.clock.monotonic()))

    async def run(self) -> None:
        producer = await self.log.producer(client_id="test")
        await self.outbox.run(producer, lambda: self.log.producer(client_id="callers"))

    def taken(self) -> list[Message]:
        return [entry.message for lane in self.outbox._lanes.values() for entry in lane.waiting]

    def written(self, partition: TopicPartition = RESULTS) -> list[str]:
        return [(record.value or b"").decode() for record in self.log.existing(partition).records]

    async def idle(self, seconds: float = 1_000.0) -> float:
        """Wait until everything is out; the virtual seconds it took."""
        started = self.clock.monotonic()
        assert await self.outbox.idle(seconds)
        return self.clock.monotonic() - started


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    here = Desk()
    task = asyncio.create_task(here.run())
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
    await here.clock.sleep(0.05)
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
async def test_it_says_when_it_is_full(here: Desk) -> None:
    """Its users take on no more then; what they put nevertheless is sent. It tells once there is room again."""
    here.log.go_away("waits")
    here.outbox.post([message(str(number)) for number in range(12)])
    await here.clock.sleep(5.0)
    assert (here.outbox.full, len(here.relieved)) == (True, 0)
    here.log.come_back()
    await here.idle()
    assert (here.outbox.full, len(here.relieved)) == (False, 1)
    assert len(here.written()) == 12


# Callers' own topics


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
async def test_a_topic_that_is_nobodys_is_given_up_at_once(here: Desk) -> None:
    """Neither of the cluster's own nor where replies may go: its fate is told, and it counts as acknowledged for those that go with it."""
    fates: list[Sent] = []
    done: list[str] = []
    here.outbox.put(message("lost", topic="steps.nosuch.standard", kind="step"), fates.append)
    here.outbox.post([message("kept"), message("lost", topic="steps.nosuch.standard")], lambda: done.append("done"))
    assert [type(fate) for fate in fates] == [NoDestination]
    await here.idle()
    assert here.written() == ["kept"]
    assert done == ["done"]


@simulated
async def test_a_partition_that_a_callers_topic_lacks_delays_no_other(here: Desk) -> None:
    """The caller is told nothing there, and what goes to the partitions that are there goes at once."""
    here.log.create([NewTopic("replies.mine", 1, 1, {})])
    here.outbox.post([final("gone", "replies.mine", 9)])
    await here.clock.sleep(10.0)
    here.outbox.post([final("here", "replies.mine", 0)])
    await here.clock.sleep(0.6)
    assert here.written(TopicPartition("replies.mine", 0)) == ["here"]


@simulated
async def test_a_stop_to_a_mailbox_that_is_gone_delays_no_other(here: Desk) -> None:
    """A stop to a living node arrives within 100 ms (law 9); the other is given up, and says so."""
    fates: list[Sent] = []
    here.outbox.put(message("gone", "controls", 99, "stop"), fates.append)
    here.outbox.post([message("urgent", "controls", 0, "stop")])
    await here.clock.sleep(0.1)
    assert here.written(CONTROLS) == ["urgent"]
    assert [type(fate) for fate in fates] == [NoDestination]


@simulated
async def test_a_partition_of_our_own_that_is_missing_is_waited_for(here: Desk) -> None:
    """The settings know it: the topic is being made anew, or grows."""
    here.log.create([NewTopic("results", 1, 1, {})])
    settings = TopicSettings(other_partitions=4)
    outbox = Outbox(here.clock, "planner", Topics(settings))
    task = asyncio.create_task(outbox.run(await here.log.producer(client_id="other")))
    fates: list[Sent] = []
    outbox.put(message("later", partition=3), fates.append)
    await here.clock.sleep(60.0)
    assert not fates
    assert len(outbox) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("seconds", [0.0, 20.0])
@pytest.mark.parametrize("away", ["results", "controls", "outcomes", "steps.chat.standard", "dead-letters", "replies.mine"])
def test_nothing_waits_for_a_topic_that_takes_nothing(away: str, seconds: float) -> None:
    """Whether it fails at once or after the client's patience, for minutes: all others go out, and it does when it is back."""

    async def body() -> None:
        async with desk() as here:
            others = [t for t in ("results", "controls", "outcomes", "steps.chat.standard", "dead-letters", "replies") if t != away]
            here.log.create([NewTopic("replies.mine", 1, 1, {})])
            here.log.faults.away[away] = seconds
            for number in range(90):
                here.outbox.post([message(str(number), topic) for topic in (away, *others)])
                await here.clock.sleep(1.0)
                assert all(len(here.written(TopicPartition(topic, 0))) == number + 1 for topic in others)
            here.log.faults.heal()
            await here.idle()
            assert here.written(TopicPartition(away, 0)) == [str(number) for number in range(90)]

    run(body())


@simulated
async def test_a_record_that_no_client_can_send_takes_no_other_along(here: Desk) -> None:
    """An error that is not Kafka's is that record's own: it is given up, and its batch goes out without it."""
    fates: list[Sent] = []
    odd = Message("results", b"odd", b"key", 0, (("type", 7),))  # type: ignore[arg-type]
    here.outbox.post([message("a")])
    here.outbox.put(odd, fates.append)
    here.outbox.post([message("b")])
    await here.idle()
    assert here.written() == ["a", "b"]
    assert [type(fate) for fate in fates] == [TypeError]


@simulated
async def test_a_fate_that_fails_to_be_told_takes_no_other_along(here: Desk) -> None:
    """What its user raises is his."""

    def fails(_: Sent) -> None:
        raise ZeroDivisionError

    here.outbox.put(message("a"), fails)
    here.outbox.put(message("b"))
    await here.idle()
    assert here.written() == ["a", "b"]


# Options


@simulated
async def test_what_is_sent_once_is_not_sent_again(here: Desk) -> None:
    """Its fate is the failure: whoever put it decides what follows."""
    here.log.faults.script(RESULTS, Fate.LOST)
    fates: list[Sent] = []
    here.outbox.put(message("a"), fates.append, again=False)
    await here.idle()
    assert [type(fate) for fate in fates] == [SendFailed]
    assert here.written() == []


@simulated
async def test_patience_ends(here: Desk) -> None:
    """What was not handed over is surely not written; of what was nobody knows. Each is told once."""
    here.log.faults.away["results"] = 20.0
    fates: dict[str, Sent] = {}
    for name, patience in (("under way", 5.0), ("waits", 5.0), ("patient", inf)):
        here.outbox.put(message(name), partial(fates.__setitem__, name), patience_seconds=patience)
        await here.clock.sleep(0.1)
    here.outbox.expire()
    assert fates == {}
    await here.clock.sleep(6.0)
    here.outbox.expire()
    assert {name: type(fate) for name, fate in fates.items()} == {"under way": LogUnavailable, "waits": NotSent}
    here.log.faults.heal()
    await here.idle()
    assert here.written() == ["patient"]
    assert isinstance(fates["patient"], Appended)


@simulated
async def test_what_lingers_leaves_with_company(here: Desk) -> None:
    """With the next of its topic that is in a hurry, whatever its partition (others wake other readers); alone when its time is over."""
    here.outbox.put(message("lingers"), linger_seconds=1.0)
    here.outbox.put(message("hurries", "controls"))
    await here.clock.sleep(0.5)
    assert (here.written(), here.written(CONTROLS)) == ([], ["hurries"])
    here.outbox.put(message("hurries", partition=1))
    await here.clock.sleep(0.1)
    assert here.written() == ["lingers"]
    here.outbox.put(message("alone"), linger_seconds=1.0)
    await here.clock.sleep(1.1)
    assert here.written() == ["lingers", "alone"]


@simulated
async def test_enough_that_linger_are_company(here: Desk) -> None:
    """A send of their own is worth it."""
    for number in range(outboxes.COMPANY):
        here.outbox.put(message(str(number)), linger_seconds=1.0)
    await here.clock.sleep(0.1)
    assert len(here.written()) == outboxes.COMPANY


@simulated
async def test_a_waiting_record_is_replaced(here: Desk) -> None:
    """At once in its place; what is on its way or out is not touched."""
    promised = here.outbox.put(message("claim"), linger_seconds=1.0)
    assert here.outbox.put(message("outcome"), instead_of=promised) is promised
    await here.clock.sleep(0.1)
    assert here.written() == ["outcome"]
    here.outbox.put(message("late"), instead_of=promised)
    await here.idle()
    assert here.written() == ["outcome", "late"]


@simulated
async def test_callers_topics_are_bounded(here: Desk) -> None:
    """Callers may name any topic under `replies.`; only so many fail at once, and tutti's own still work."""
    for number in range(100):
        here.outbox.post([final("lost", topic=f"replies.{number}")])
    assert here.outbox._callers == outboxes.CALLERS_TOPICS
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


def test_the_stand_in_is_virtual() -> None:
    """Minutes of these tests take no time."""

    async def body() -> Any:
        async with desk() as here:
            await here.clock.sleep(1e6)
            return here.clock.monotonic()

    assert run(body()) == pytest.approx(1e6)
