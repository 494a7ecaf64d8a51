"""The in-memory log's faults: each does what its name says, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.errors import CommitRefused, LogUnavailable, SendFailed
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import Appended, Message, NewTopic, TopicPartition
from shared.kafka.settings import SILENCE_SECONDS
from tests.support.log_bench import Recorder

TP = TopicPartition("t", 0)

Scenario = Callable[[MemoryLog], Awaitable[None]]


def play(scenario: Scenario, *, seed: int = 1) -> None:
    """Run on a fresh log with one topic of one partition, under virtual time."""

    async def run() -> None:
        log = MemoryLog(LoopClock(), random=Random(seed))
        log.create([NewTopic("t", 1, 1, {})])
        await scenario(log)

    virtual_loop.run(run())


def values(log: MemoryLog) -> list[bytes | None]:
    return [record.value for record in log.existing(TP).records]


@pytest.mark.parametrize(
    ("fate", "in_log", "base"),
    [(Fate.LOST, 0, None), (Fate.UNACKNOWLEDGED, 2, None), (Fate.OFFSET_UNKNOWN, 2, -1), (Fate.ACKNOWLEDGED, 2, 0)],
)
def test_a_scripted_fate_meets_the_next_batch_only(fate: Fate, in_log: int, base: int | None) -> None:
    """Whether it is in the log, and whether its sender knows, are two things; a batch is in the log whole or not at all."""

    async def scenario(log: MemoryLog) -> None:
        producer = await log.producer(client_id="p")
        log.faults.script(TP, fate)
        if base is None:
            with pytest.raises(SendFailed):
                await producer.append(TP, [Message("t", b"a"), Message("t", b"b")])
        else:
            assert await producer.append(TP, [Message("t", b"a"), Message("t", b"b")]) == base
        assert len(values(log)) == in_log
        assert await producer.append(TP, [Message("t", b"c")]) == in_log

    play(scenario)


def test_drawn_fates_are_reported_per_message() -> None:
    """With all fates likely, every Appended message lies where it is said, and LOST ones are not in the log."""

    async def scenario(log: MemoryLog) -> None:
        log.faults.lost = log.faults.unacknowledged = log.faults.offset_unknown = 0.2
        producer = await log.producer(client_id="p")
        kinds = set()
        for n in range(200):
            [result] = await producer.send_many([Message("t", b"%d" % n)])
            if isinstance(result, Appended):
                kinds.add("unknown" if result.offset < 0 else "known")
                where = values(log).index(b"%d" % n)
                assert result.offset in {-1, where}
            else:
                kinds.add("appended" if b"%d" % n in values(log) else "lost")
        assert kinds == {"known", "unknown", "appended", "lost"}
        log.faults.heal()
        assert isinstance((await producer.send_many([Message("t", b"end")]))[0], Appended)

    play(scenario)


def test_delays_keep_the_order_of_a_partition() -> None:
    """However long each batch travels, one producer's batches lie in the order of sending and are read in the order of the log."""

    async def scenario(log: MemoryLog) -> None:
        log.faults.send_seconds = log.faults.ack_seconds = log.faults.delivery_seconds = (0.0, 1.0)
        producer = await log.producer(client_id="p")
        consumer = await log.consumer(client_id="c")
        consumer.assign([TP])
        sends = [asyncio.ensure_future(producer.send(Message("t", b"%d" % n))) for n in range(50)]
        read: list[bytes | None] = []
        while len(read) < 50:
            for records in (await consumer.poll(timeout_seconds=0.1)).values():
                read += [record.value for record in records]
        assert read == values(log) == [b"%d" % n for n in range(50)]
        assert [(await send).offset for send in sends] == list(range(50))

    play(scenario)


def test_a_record_is_not_read_before_it_is_delivered() -> None:
    """The writer knows its offset at once, the reader sees the record after the delivery delay and not earlier."""

    async def scenario(log: MemoryLog) -> None:
        log.faults.delivery_of[TP] = (2.0, 2.0)
        producer = await log.producer(client_id="p")
        consumer = await log.consumer(client_id="c")
        consumer.assign([TP])
        await producer.send(Message("t", b"v"))
        assert not await consumer.poll(timeout_seconds=1.9)
        assert await consumer.end_offsets([TP]) == {TP: 1}
        started = log.clock.monotonic()
        assert await consumer.poll(timeout_seconds=10.0)
        assert log.clock.monotonic() - started == pytest.approx(0.1)

    play(scenario)


def test_a_cluster_that_is_away_makes_calls_wait() -> None:
    """Sends, commits and queries go on when it is back; polls are empty at their timeout, or an error after long; nothing is lost."""

    async def scenario(log: MemoryLog) -> None:
        producer = await log.producer(client_id="p")
        consumer = await log.consumer(client_id="c", group="g")
        consumer.assign([TP])
        log.go_away()
        calls = [
            asyncio.ensure_future(call)
            for call in (producer.send(Message("t", b"v")), consumer.commit({TP: 0}), consumer.end_offsets([TP]), log.admin())
        ]
        assert not await consumer.poll(timeout_seconds=SILENCE_SECONDS)
        with pytest.raises(LogUnavailable):
            await consumer.poll(timeout_seconds=60.0)
        assert not any(call.done() for call in calls)
        log.come_back()
        await asyncio.wait_for(asyncio.gather(*calls), 1.0)
        assert await consumer.poll(timeout_seconds=1.0)

    play(scenario)


def test_a_cluster_that_is_away_may_also_make_calls_fail() -> None:
    """LogUnavailable, for sends SendFailed with nothing appended; a poll fails only at its timeout, so that pumps do not spin."""

    async def scenario(log: MemoryLog) -> None:
        producer = await log.producer(client_id="p")
        consumer = await log.consumer(client_id="c", group="g")
        consumer.assign([TP])
        log.go_away("fails")
        with pytest.raises(SendFailed):
            await producer.send(Message("t", b"v"))
        with pytest.raises(LogUnavailable):
            await consumer.commit({TP: 0})
        started = log.clock.monotonic()
        with pytest.raises(LogUnavailable):
            await consumer.poll(timeout_seconds=3.0)
        assert log.clock.monotonic() - started == pytest.approx(3.0)
        assert values(log) == []

    play(scenario)


def test_a_killed_process_leaves_only_what_had_arrived() -> None:
    """What travels vanishes, calls never return, and its partitions are taken over after the session timeout, not before."""

    async def scenario(log: MemoryLog) -> None:
        dying, heir = log.process("dying"), log.process("heir")
        first = await dying.consumer(client_id="a", group="g")
        await first.subscribe(["t"])
        while not first.assignment():
            await first.poll(timeout_seconds=0.1)
        producer = await dying.producer(client_id="p")
        await producer.send(Message("t", b"arrived"))
        log.faults.send_seconds = (1.0, 1.0)
        travelling = asyncio.ensure_future(producer.send(Message("t", b"travelling")))
        await log.clock.sleep(0.5)
        log.kill("dying")
        killed_at = log.clock.monotonic()
        second = await heir.consumer(client_id="b", group="g")
        await second.subscribe(["t"])
        while not second.assignment():
            await second.poll(timeout_seconds=0.1)
        assert log.clock.monotonic() - killed_at == pytest.approx(log.timings.session, abs=0.2)
        assert values(log) == [b"arrived"]
        assert not travelling.done()
        travelling.cancel()
        await producer.close()
        await first.close()
        assert log.process("dying") is not dying
        await second.close()

    play(scenario)


def test_a_frozen_process_comes_back_as_a_zombie() -> None:
    """After the thaw it still believes that it owns its partition; its late append lands, its commit is refused, then it rejoins."""

    async def scenario(log: MemoryLog) -> None:
        frozen, heir = log.process("frozen"), log.process("heir")
        recorder = Recorder()
        zombie = await frozen.consumer(client_id="a", group="g")
        await zombie.subscribe(["t"], recorder)
        while not zombie.assignment():
            await zombie.poll(timeout_seconds=0.1)
        producer = await frozen.producer(client_id="p")
        log.freeze("frozen")
        late = asyncio.ensure_future(producer.append(TP, [Message("t", b"late")]))
        owner = await heir.consumer(client_id="b", group="g")
        await owner.subscribe(["t"])
        while not owner.assignment():
            await owner.poll(timeout_seconds=0.1)
        assert not late.done()
        log.write(TP, [Message("t", b"owner's")])
        log.thaw("frozen")
        assert zombie.assignment() == {TP}
        with pytest.raises(CommitRefused):
            await zombie.commit({TP: 1})
        assert await late == 1
        while ("revoked", frozenset({TP})) not in recorder.events:
            await zombie.poll(timeout_seconds=0.1)
        await zombie.close()
        await owner.close()

    play(scenario)


def test_an_evicted_member_learns_it_from_its_next_heartbeat() -> None:
    """The hook for a member that the broker threw out: its commit is refused at once, and it joins again by itself."""

    async def scenario(log: MemoryLog) -> None:
        consumer = await log.consumer(client_id="a", group="g")
        recorder = Recorder()
        await consumer.subscribe(["t"], recorder)
        while not consumer.assignment():
            await consumer.poll(timeout_seconds=0.1)
        consumer.evict()
        with pytest.raises(CommitRefused):
            await consumer.commit({TP: 0})
        await log.clock.sleep(2 * log.timings.heartbeat)
        assert [kind for kind, _ in recorder.events] == ["assigned", "revoked", "assigned"]
        await consumer.commit({TP: 0})
        await consumer.close()

    play(scenario)


def test_a_member_that_does_not_rejoin_in_time_is_dropped() -> None:
    """`on_revoked` that takes longer than the rebalance timeout costs the membership, not the group."""

    async def scenario(log: MemoryLog) -> None:
        async def dawdle(_: object) -> None:
            await log.clock.sleep(3 * log.timings.rebalance)

        slow = await log.consumer(client_id="slow", group="g")
        await slow.subscribe(["t"], Recorder(dawdle))
        while not slow.assignment():
            await slow.poll(timeout_seconds=0.1)
        quick = await log.consumer(client_id="quick", group="g")
        started = log.clock.monotonic()
        await quick.subscribe(["t"])
        while not quick.assignment():
            await quick.poll(timeout_seconds=0.1)
        assert log.clock.monotonic() - started <= log.timings.rebalance + 0.2
        await log.clock.sleep(4 * log.timings.rebalance)
        assert log.group("g").member_count() == 2
        await slow.close()
        await quick.close()

    play(scenario)


def test_compaction_keeps_the_newest_of_each_key_at_its_offset() -> None:
    """Offsets stay, a reader passes over the holes and its position reaches the end; tombstones go when told."""

    async def scenario(log: MemoryLog) -> None:
        log.write(TP, [Message("t", b"%d" % n, key=b"k%d" % (n % 3)) for n in range(9)])
        log.write(TP, [Message("t", None, key=b"k0")])
        log.existing(TP).compact(drop_tombstones=False)
        assert [(r.offset, r.value) for r in log.existing(TP).records] == [(7, b"7"), (8, b"8"), (9, None)]
        log.existing(TP).compact(drop_tombstones=True)
        consumer = await log.consumer(client_id="c")
        consumer.assign([TP])
        [records] = (await consumer.poll(timeout_seconds=1.0)).values()
        assert [record.offset for record in records] == [7, 8]
        assert await consumer.position(TP) == 10
        assert log.write(TP, [Message("t", b"next", key=b"k9")]) == 10
        [records] = (await consumer.poll(timeout_seconds=1.0)).values()
        assert [record.offset for record in records] == [10]

    play(scenario)


def test_retention_by_count_and_by_time() -> None:
    """The oldest go, the begin offset moves, also over everything."""

    async def scenario(log: MemoryLog) -> None:
        for n in range(5):
            log.write(TP, [Message("t", b"%d" % n)] * 2)
            await log.clock.sleep(10.0)
        partition = log.existing(TP)
        partition.expire(int((log.clock.wall() - 35.0) * 1000))
        assert (partition.begin, partition.end, len(partition.records)) == (4, 10, 6)
        partition.keep_last(1)
        assert (partition.begin, values(log)) == (9, [b"4"])
        partition.keep_last(0)
        assert (partition.begin, partition.end, values(log)) == (10, 10, [])

    play(scenario)


def test_truncation_gives_offsets_again() -> None:
    """An unclean election: acknowledged records are gone, and the next append is told a lower offset than expected."""

    async def scenario(log: MemoryLog) -> None:
        producer = await log.producer(client_id="p")
        assert await producer.append(TP, [Message("t", b"a")] * 5) == 0
        log.existing(TP).truncate(2)
        assert await producer.append(TP, [Message("t", b"b")]) == 2

    play(scenario)


def test_added_partitions_and_new_topics_reach_the_group() -> None:
    """A group that subscribes to a topic gets partitions that are added to it, and a topic that is created late."""

    async def scenario(log: MemoryLog) -> None:
        consumer = await log.consumer(client_id="c", group="g")
        await consumer.subscribe(["t", "later"])
        while len(consumer.assignment()) < 1:
            await consumer.poll(timeout_seconds=0.1)
        log.add_partitions("t", 3)
        log.create([NewTopic("later", 2, 1, {})])
        await log.clock.sleep(5.0)
        assert len(consumer.assignment()) == 5
        await consumer.close()

    play(scenario)


def test_a_run_is_repeated_by_its_seed() -> None:
    """Two runs with one seed give the same log at the same virtual times."""

    def run(seed: int) -> list[tuple[bytes | None, int]]:
        found: list[tuple[bytes | None, int]] = []

        async def scenario(log: MemoryLog) -> None:
            log.faults.send_seconds = log.faults.ack_seconds = (0.0, 0.5)
            log.faults.lost = log.faults.unacknowledged = 0.2
            producers = [await log.process(f"p{n}").producer(client_id="p") for n in range(3)]

            async def send(which: int) -> None:
                for n in range(20):
                    await producers[which].send_many([Message("t", b"%d-%d" % (which, n))])

            await asyncio.gather(*(send(n) for n in range(3)))
            found.extend((record.value, record.timestamp) for record in log.existing(TP).records)

        play(scenario, seed=seed)
        return found

    assert run(7) == run(7) != run(8)
