"""The whole delay service on the in-memory log under virtual time; and what goes round through it and the routers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import Message, TopicPartition
from shared.processing.delays import build_delayed
from shared.topics import partition_of
from tests.support.routing import step
from tests.support.routing_cluster import Cluster, cluster, simulated

TARGET = "jobs.standard"


def put(it: Cluster, name: str, seconds: float) -> float:
    """Delay a record to partition 2 of the target; returns when it is due."""
    due_at = it.clock.wall() + seconds
    message = build_delayed(it.topics, Message(TARGET, name.encode(), name.encode(), 2, (("h", b"1"),)), due_at, it.clock.wall())
    it.log.write(TopicPartition(message.topic, partition_of(name.encode(), 6)), [message])
    return due_at


def arrived(it: Cluster) -> Counter[str]:
    return Counter((record.value or b"").decode() for record in it.records(TARGET))


@simulated
async def test_each_arrives_when_it_is_due(it: Cluster) -> None:
    """From half a second to minutes: never early, at most 20 ms late, once, as it was."""
    it.delay()
    await it.clock.sleep(5.0)
    due = {f"m{seconds}": put(it, f"m{seconds}", seconds) for seconds in (0.0, 0.5, 1.0, 3.7, 7.0, 42.0, 200.0)}
    await it.until(lambda: len(arrived(it)) == len(due), seconds=300.0, step=10.0)
    for record in it.records(TARGET):
        late = record.timestamp / 1000 - due[(record.value or b"").decode()]
        assert -0.002 <= late <= 0.02
        assert (record.partition, record.key, tuple(record.headers)) == (2, record.value, (("h", b"1"), ("was-delayed", b"1")))
    assert arrived(it) == Counter(list(due))


@simulated
async def test_kills_at_any_point_lose_nothing(it: Cluster) -> None:
    """Killed again and again in the middle of holding and sending: everything arrives, none early."""
    it.log.faults.send_seconds = it.log.faults.ack_seconds = (0.0, 0.05)
    due = {f"m{number}": put(it, f"m{number}", number * 0.37) for number in range(80)}
    for round_ in range(5):
        it.delay(f"d{round_}")
        await it.clock.sleep(it.random.uniform(4.0, 9.0))
        it.kill(f"d{round_}")
    it.delay("last")
    await it.until(lambda: len(arrived(it)) == len(due), seconds=60.0)
    for record in it.records(TARGET):
        assert record.timestamp / 1000 >= due[(record.value or b"").decode()] - 0.002


@simulated
async def test_a_record_is_committed_past_only_when_it_was_sent_on(it: Cluster) -> None:
    """A lost send is repeated; until then the record is the next owner's to find."""
    it.delay()
    await it.clock.sleep(3.0)
    it.log.faults.script(TopicPartition(TARGET, 2), *[Fate.LOST] * 4)
    put(it, "m", 0.5)
    number = partition_of(b"m", 6)
    await it.clock.sleep(1.5)
    assert it.committed("delays.1s", number, "tutti-delay") in (None, 0)
    await it.until(lambda: it.committed("delays.1s", number, "tutti-delay") == 1)
    assert arrived(it) == Counter(["m"])


@simulated
async def test_memory_is_bounded_and_what_waits_in_kafka_still_arrives(it: Cluster) -> None:
    """2,000 records with room for 50 in each of six partitions: all arrive, and at no time are more held."""
    service: Any = it.delay(held_records=50)
    message = build_delayed(it.topics, Message(TARGET, b"m", None, 2), it.clock.wall() + 3.0, it.clock.wall())
    it.log.write(TopicPartition("delays.1s", 0), [message] * 2000)
    most = 0
    while sum(arrived(it).values()) < 2000:
        await it.clock.sleep(0.05)
        most = max(most, len(service.held))
        assert it.clock.monotonic() < 60.0
    assert 50 <= most <= 6 * 50


@simulated
async def test_poison_becomes_a_dead_letter_and_the_partition_goes_on(it: Cluster) -> None:
    """A record that is nothing, and one for a topic that takes none."""
    it.delay()
    it.log.write(TopicPartition("delays.5s", 0), [Message("delays.5s", b"{"), Message("delays.5s", None)])
    foreign = build_delayed(it.topics, Message("outcomes", b"x", None, 0), it.clock.wall(), it.clock.wall())
    it.log.write(TopicPartition("delays.1s", 0), [foreign])
    await it.until(lambda: len(it.records("dead-letters")) == 3)
    await it.until(lambda: it.committed("delays.5s", 0, "tutti-delay") == 2)
    assert it.records("outcomes") == []


@simulated
async def test_two_share_the_tiers_and_one_may_leave(it: Cluster) -> None:
    """In a clean hand-over nothing arrives twice; what the one held is the other's."""
    it.delay("d1")
    it.delay("d2")
    await it.clock.sleep(5.0)
    names = [f"m{number}" for number in range(60)]
    for number, name in enumerate(names):
        put(it, name, 2.0 + number * 0.2)
    await it.clock.sleep(6.0)
    await it.stop("d1")
    await it.until(lambda: len(arrived(it)) == 60, seconds=30.0)
    assert arrived(it) == Counter(names)


@simulated
async def test_a_partition_of_nothing_but_poison_is_stopped_the_others_go_on(it: Cluster) -> None:
    """After 200 dead letters it stands still, uncommitted, and the service says why; other partitions are forwarded."""
    service: Any = it.delay()
    it.log.write(TopicPartition("delays.5s", 0), [Message("delays.5s", b"{")] * 3_000)
    await it.until(lambda: it.committed("delays.5s", 0, "tutti-delay") == 200)
    put(it, "m", 0.5)
    await it.until(lambda: arrived(it) == Counter(["m"]), seconds=20.0)
    await it.clock.sleep(5.0)
    assert len(it.records("dead-letters")) == 200
    assert it.committed("delays.5s", 0, "tutti-delay") == 200
    assert "200 of the last 200 records of delays.5s/0" in service.readiness().reasons[0]


@pytest.mark.parametrize("seconds", [0.0, 20.0])
@pytest.mark.parametrize("away", ["jobs.batch", "steps.chat.standard", "delays.1s", "dead-letters"])
def test_nothing_waits_for_a_topic_that_takes_nothing(away: str, seconds: float) -> None:
    """For minutes: what is due elsewhere arrives in time, and the rest when the topic is back."""

    async def main() -> None:
        async with cluster() as it:
            it.delay()
            await it.clock.sleep(5.0)
            it.log.faults.away[away] = seconds
            for number in range(60):
                for topic in ("jobs.batch", "steps.chat.standard"):
                    name, wall = f"{topic}-{number}", it.clock.wall()
                    message = build_delayed(it.topics, Message(topic, name.encode(), name.encode(), 2), wall + 7.0, wall)
                    it.log.write(TopicPartition(message.topic, number % 6), [message])
                it.log.write(TopicPartition("delays.5s", 0), [Message("delays.5s", b"{")])
                put(it, f"m{number}", 0.5)
                await it.clock.sleep(2.0)
                assert len(arrived(it)) == number + 1
            others = {"jobs.batch", "steps.chat.standard"} - {away}
            if away != "delays.1s":
                assert all(len(it.records(topic)) >= 55 for topic in others)
            it.log.faults.heal()
            await it.until(lambda: all(len(it.records(topic)) >= 60 for topic in ("jobs.batch", "steps.chat.standard", "dead-letters")))

    run(main())


@simulated
async def test_what_came_back_from_delay_and_is_read_again_goes_there_once(it: Cluster) -> None:
    """A step that waits for its busy node pins the position: the next owner reads each return of another step again. They are one."""
    busy = it.node("n1", 0)
    busy.closed = True
    it.router("r1")
    it.delay()
    it.ask(step(), step(job="j2", id="2" * 32, model="none:1b"))
    for owner in ("r1", "r2", "r3"):
        await it.clock.sleep(60.0)
        assert it.committed("steps.chat.standard") in (None, 0)
        it.kill(owner)
        it.router(f"r{int(owner[1]) + 1}")
    before = len(it.records("steps.chat.standard"))
    assert before > 12
    await it.clock.sleep(60.0)
    assert len(it.records("steps.chat.standard")) - before <= 60 // 10 + 1
    busy.closed = False
    await it.until(lambda: len(busy.done) == 1)
    await it.until(lambda: (it.committed("steps.chat.standard") or 0) > before)
