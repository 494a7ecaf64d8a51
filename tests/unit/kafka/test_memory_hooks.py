"""The in-memory log's hooks for simulations: doubled batches, batches that outlive their sender, listeners, evictions by chance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from random import Random

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, NewTopic, TopicPartition

TP = TopicPartition("t", 0)


def play(scenario: Callable[[MemoryLog], Awaitable[None]]) -> None:
    async def main() -> None:
        log = MemoryLog(LoopClock(), random=Random(1))
        log.create([NewTopic("t", 1, 1, {}), NewTopic("u", 1, 1, {})])
        await scenario(log)

    virtual_loop.run(main())


def values(log: MemoryLog, topic: str = "t") -> list[bytes | None]:
    return [record.value for record in log.existing(TopicPartition(topic, 0)).records]


def test_a_doubled_batch_lies_in_the_log_twice_where_that_is_allowed() -> None:
    """Only topics that are named are doubled; the sender hears of the first copy."""

    async def scenario(log: MemoryLog) -> None:
        log.faults.duplicated, log.faults.duplicable = 1.0, frozenset({"t"})
        producer = await log.producer(client_id="p")
        assert (await producer.send(Message("t", b"a"))).offset == 0
        assert await producer.append(TopicPartition("u", 0), [Message("u", b"b")]) == 0
        assert values(log) == [b"a", b"a"]
        assert values(log, "u") == [b"b"]

    play(scenario)


def test_what_left_a_killed_process_may_arrive() -> None:
    """With the fault every batch under way arrives when it was due, in order; without it none does."""

    async def scenario(log: MemoryLog) -> None:
        for share in (1.0, 0.0):
            log.faults.send_seconds, log.faults.posthumous = (1.0, 2.0), share
            producer = await log.process(f"p{share}").producer(client_id="p")
            sends = [asyncio.ensure_future(producer.send(Message("t", b"%d" % n))) for n in range(3)]
            await log.clock.sleep(0.5)
            before = values(log)
            log.kill(f"p{share}")
            await log.clock.sleep(10.0)
            assert values(log) == before + ([b"0", b"1", b"2"] if share else [])
            assert not any(send.done() for send in sends)
            for send in sends:
                send.cancel()

    play(scenario)


def test_listeners_hear_of_every_append_and_every_accepted_commit() -> None:
    """Of appends as they lie in the log, of commits once the group has taken them."""

    async def scenario(log: MemoryLog) -> None:
        heard: list[object] = []
        log.written_listeners.append(lambda records: heard.append([(r.topic, r.offset, r.value) for r in records]))
        log.committed_listeners.append(lambda group, offsets: heard.append((group, dict(offsets))))
        producer = await log.producer(client_id="p")
        await producer.append(TP, [Message("t", b"a"), Message("t", b"b")])
        consumer = await log.consumer(client_id="c", group="g")
        consumer.assign([TP])
        await consumer.commit({TP: 2})
        assert heard == [[("t", 0, b"a"), ("t", 1, b"b")], ("g", {TP: 2})]

    play(scenario)


def test_a_rebalance_goes_on_when_the_process_that_began_it_is_gone() -> None:
    """The group's timers belong to the cluster: a loop that holds back the callbacks of one process does not hold back theirs."""

    async def scenario(log: MemoryLog) -> None:
        owner: ContextVar[str] = ContextVar("owner", default="cluster")
        assigned: list[str] = []

        class Listener:
            async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
                return None

            async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
                assigned.append(owner.get())

        owner.set("first")
        first = await log.process("first").consumer(client_id="c", group="g")
        await first.subscribe(["t"], Listener())
        await log.clock.sleep(1.0)
        owner.set("second")
        callers: list[str] = []
        rejoin = first._member.rejoin
        first._member.rejoin = lambda: (callers.append(owner.get()), rejoin())  # type: ignore[func-returns-value]
        second = await log.process("second").consumer(client_id="c", group="g")
        await second.subscribe(["t"], Listener())
        await log.clock.sleep(5.0)
        assert callers == ["cluster"]
        assert assigned == ["first", "first", "second"]
        await first.close()
        await second.close()

    play(scenario)


def test_one_member_is_evicted_by_chance() -> None:
    """The member joins again by itself; without members nothing happens."""

    async def scenario(log: MemoryLog) -> None:
        assert not log.group("g").evict_any(Random(1))
        consumer = await log.consumer(client_id="c", group="g")
        await consumer.subscribe(["t"])
        await log.clock.sleep(1.0)
        generation = log.group("g").generation
        assert log.group("g").evict_any(Random(1))
        await log.clock.sleep(5.0)
        assert log.group("g").generation > generation
        assert consumer.assignment() == {TP}
        await consumer.close()

    play(scenario)
