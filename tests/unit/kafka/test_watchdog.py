"""The watchdog's policy, and a watched consumer whose client falls silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.errors import ConsumerGaveUp, LogError, LogUnavailable
from shared.kafka.client.watchdog import AGAIN_SECONDS, UNHEARD_SECONDS, Hearing, Reason, Sight, Watchdog, WatchdogLimits
from shared.kafka.client.watched import WatchedLog
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Consumer, Message, NewTopic, Record, TopicPartition
from shared.processing.tail import Tail
from tests.support.log_bench import Recorder

TP = TopicPartition("t", 0)
LIMITS = WatchdogLimits()


BEHIND, UNKNOWN, DONE = {TP: (3, 9)}, {TP: (None, 0)}, {TP: (5, 5)}
Places = dict[TopicPartition, tuple[int | None, int]]


def looks(*sights: Sight, dog: Watchdog | None = None) -> list[Reason | None]:
    """What each look says."""
    dog = dog or Watchdog(LIMITS)
    return [dog.look(sight) for sight in sights]


@pytest.mark.parametrize("stuck", [BEHIND, UNKNOWN])
def test_a_partition_is_stuck_when_it_is_behind_and_does_not_move(stuck: Places) -> None:
    """After so many looks since the first that found it there; also a client that does not tell its position, where the cluster answers."""
    said = looks(*[Sight(stuck)] * (LIMITS.stuck + 1))
    assert said == [None] * LIMITS.stuck + [Reason.STUCK_PARTITION]


@pytest.mark.parametrize("between", [{TP: (4, 9)}, {TP: (9, 9)}, {}])
def test_moved_caught_up_or_not_asked_for_meanwhile_the_count_begins_again(between: Places) -> None:
    """Whatever comes in between, the same place is no stall yet; more records behind it are none of its doing."""
    sights = [*[Sight(BEHIND)] * LIMITS.stuck, Sight(between), *[Sight({TP: (3, 12)})] * LIMITS.stuck]
    assert set(looks(*sights)) == {None}


def test_idle_is_not_stuck() -> None:
    """A partition that was caught up for an hour is not stuck the moment a record arrives."""
    dog = Watchdog(LIMITS)
    assert set(looks(*[Sight(DONE)] * 720, *[Sight({TP: (5, 6)})] * LIMITS.stuck, dog=dog)) == {None}
    assert dog.look(Sight({TP: (5, 6)})) is Reason.STUCK_PARTITION


def test_waiting_for_an_assignment_has_a_limit() -> None:
    """Counted from the last one that came."""
    waits = [Sight(unassigned=True)] * LIMITS.unassigned
    assert set(looks(*waits, Sight(), *waits)) == {None}
    assert looks(*waits, *waits)[LIMITS.unassigned] is Reason.NO_ASSIGNMENT


def test_a_producer_is_unheard_when_something_waits_and_nothing_is_acknowledged() -> None:
    """Also where each try fails and is made again; not while anything is acknowledged, nor when nobody sends any more."""
    hearing = Hearing()
    assert not hearing.unheard(1_000.0)
    hearing.begun(0.0)
    assert not hearing.unheard(UNHEARD_SECONDS)
    assert hearing.unheard(UNHEARD_SECONDS + 1)
    hearing.begun(11.0)
    hearing.ended(12.0, acknowledged=True)
    assert not hearing.unheard(12.0 + UNHEARD_SECONDS), "another partition takes writes: Kafka is there"
    assert hearing.unheard(13.0 + UNHEARD_SECONDS)
    hearing.ended(30.0, acknowledged=False)
    hearing.begun(30.0 + AGAIN_SECONDS)
    assert hearing.unheard(30.0 + AGAIN_SECONDS), "the same silence"
    hearing.ended(36.0, acknowledged=False)
    assert hearing.unheard(36.0 + AGAIN_SECONDS)
    assert not hearing.unheard(37.0 + AGAIN_SECONDS), "nobody sends any more: nothing is known"
    hearing.begun(60.0)
    assert not hearing.unheard(61.0)


def test_a_poll_that_does_not_return_is_told_from_many_that_do() -> None:
    """By its number."""
    assert set(looks(*[Sight(poll=number) for number in range(50)])) == {None}
    assert looks(*[Sight(poll=7)] * (LIMITS.hung_poll + 1))[-1] is Reason.HUNG_POLL


class Patient:
    """A consumer that may fall ill: "silent" polls return nothing although records are there, "hung" ones never
    return, "broken" ones raise; one that is "unassigned" does not get into its group.
    """

    def __init__(self, inner: Consumer, state: Callable[[], str]) -> None:
        self._inner, self._state = inner, state
        self._group: tuple[Any, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def subscribe(self, *group: Any) -> None:
        self._group = group
        if self._state() != "unassigned":
            await self._join()

    async def _join(self) -> None:
        group, self._group = self._group, ()
        if group:
            await self._inner.subscribe(*group)

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        if self._state() == "silent":
            await LoopClock().sleep(timeout_seconds)
            return {}
        if self._state() == "unassigned":
            await LoopClock().sleep(timeout_seconds)
            return {}
        await self._join()
        if self._state() == "broken":
            raise LogError("it is broken")
        if self._state() == "hung":
            await asyncio.get_running_loop().create_future()
        return await self._inner.poll(timeout_seconds=timeout_seconds, max_records=max_records, partitions=partitions)


class Ward(MemoryLog):
    """`states` says how each consumer is, by the order in which they were built; the watchdog's own are always well."""

    def __init__(self) -> None:
        super().__init__(LoopClock())
        self.states: defaultdict[int, str] = defaultdict(lambda: "well")
        self.built = 0
        self.takes_commits = True
        self.create([NewTopic("t", 1, 1, {})])

    async def consumer(self, **options: Any) -> Any:
        inner = await super().consumer(**options)
        if options["client_id"].endswith("-watchdog"):
            if options.get("group"):
                assert options["group"] == "g-watchdog", "what ACLs allow"
                inner.commit = partial(self._commit, inner.commit)  # type: ignore[method-assign]
            return inner
        self.built += 1
        number = self.built
        return Patient(inner, lambda: self.states[number])

    async def _commit(self, commit: Callable[..., Awaitable[None]], offsets: Mapping[TopicPartition, int]) -> None:
        if not self.takes_commits:
            raise LogUnavailable
        await commit(offsets)


def play(scenario: Callable[[Ward, WatchedLog], Awaitable[None]]) -> None:
    async def run() -> None:
        ward = Ward()
        await scenario(ward, WatchedLog(ward, ward.clock))

    virtual_loop.run(run())


async def poll_for(consumer: Consumer, log: MemoryLog, seconds: float) -> list[int]:
    """Offsets that come within `seconds`."""
    until = log.clock.monotonic() + seconds
    seen: list[int] = []
    while log.clock.monotonic() < until:
        with contextlib.suppress(LogUnavailable):
            for records in (await consumer.poll(timeout_seconds=1.0)).values():
                seen += [record.offset for record in records]
    return seen


@pytest.mark.parametrize("group", [None, "g"])
def test_who_waits_behind_an_open_transaction_is_not_to_blame(group: str | None) -> None:
    """Of a foreign producer, for as long as its cluster allows: there is nothing to read for who takes only what was committed."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        consumer = await log.consumer(client_id="c", group=group, committed_only=True)
        if group is None:
            consumer.assign([TP])
        else:
            await consumer.subscribe(["t"], Recorder())
        ward.begin_transaction(TP)
        ward.write(TP, [Message("t", b"v")] * 3)
        assert await poll_for(consumer, ward, 900.0) == []
        ward.end_transaction(TP, commit=True)
        assert await poll_for(consumer, ward, 910.0) == [0, 1, 2]
        await consumer.close()

    play(scenario)


@pytest.mark.parametrize(("state", "reason"), [("silent", Reason.STUCK_PARTITION), ("hung", Reason.HUNG_POLL)])
@pytest.mark.parametrize("group", [None, "g"])
def test_a_consumer_that_stops_is_given_up(state: str, reason: Reason, group: str | None) -> None:
    """The poll says so, and every later one: whoever polls ends, and with it the process."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        consumer = await log.consumer(client_id="c", group=group)
        if group is None:
            consumer.assign([TP])
        else:
            await consumer.subscribe(["t"], Recorder())
        ward.write(TP, [Message("t", b"v")] * 3)
        assert await poll_for(consumer, ward, 10.0) == [0, 1, 2]
        ward.states[1] = state
        ward.write(TP, [Message("t", b"v")] * 2)
        began = ward.clock.monotonic()
        for _ in range(2):
            with pytest.raises(ConsumerGaveUp, match=reason):
                await poll_for(consumer, ward, 600.0)
        assert LIMITS.look * LIMITS.stuck <= ward.clock.monotonic() - began <= LIMITS.look * (LIMITS.stuck + 2)
        assert ward.built == 1
        await consumer.close()

    play(scenario)


def test_a_member_that_is_assigned_nothing_is_given_up() -> None:
    """The cluster answers, the group does not."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        ward.states[1] = "unassigned"
        consumer = await log.consumer(client_id="c", group="g")
        await consumer.subscribe(["t"], Recorder())
        with pytest.raises(ConsumerGaveUp, match=Reason.NO_ASSIGNMENT):
            await poll_for(consumer, ward, 600.0)
        await consumer.close()

    play(scenario)


def test_a_member_waits_while_no_group_can_be_assigned_anything() -> None:
    """With too few replicas Kafka serves every read and takes no commit: a new process would not be assigned anything, either."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        ward.states[1], ward.takes_commits = "unassigned", False
        consumer = await log.consumer(client_id="c", group="g")
        await consumer.subscribe(["t"], Recorder())
        ward.write(TP, [Message("t", b"v")])
        assert await poll_for(consumer, ward, 3_600.0) == []
        ward.takes_commits = True
        began = ward.clock.monotonic()
        with pytest.raises(ConsumerGaveUp, match=Reason.NO_ASSIGNMENT):
            await poll_for(consumer, ward, 600.0)
        assert ward.clock.monotonic() - began >= LIMITS.look * LIMITS.unassigned
        await consumer.close()

    play(scenario)


def test_a_member_waits_for_its_assignment_as_long_as_the_cluster_is_away() -> None:
    """A cluster that does not answer is no stall, and a new process would wait for it just the same."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        ward.states[1] = "unassigned"
        consumer = await log.consumer(client_id="c", group="g")
        await consumer.subscribe(["t"], Recorder())
        assert await poll_for(consumer, ward, LIMITS.look * LIMITS.unassigned / 2) == []
        ward.go_away()
        assert await poll_for(consumer, ward, 600.0) == []
        ward.states[1] = "well"
        ward.come_back()
        ward.write(TP, [Message("t", b"v")])
        assert await poll_for(consumer, ward, 60.0) == [0]
        await consumer.close()

    play(scenario)


def test_a_reader_that_waits_for_kafka_lets_a_consumer_that_stopped_end_it() -> None:
    """A Tail goes on after every error of the log, and not after this one."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        seen: list[int] = []

        def handle(_: TopicPartition, records: Sequence[Record]) -> None:
            seen.extend(record.offset for record in records)

        task = asyncio.create_task(Tail(log, ward.clock, [TP], client_id="c", handle=handle).run())
        ward.write(TP, [Message("t", b"v")] * 3)
        await ward.clock.sleep(2.0)
        ward.states[1] = "broken"
        await ward.clock.sleep(60.0)
        assert not task.done()
        ward.states[1] = "silent"
        ward.write(TP, [Message("t", b"v")])
        await ward.clock.sleep(60.0)
        assert seen == [0, 1, 2]
        assert isinstance(task.exception(), ConsumerGaveUp)

    play(scenario)


def test_a_tail_begins_anew_in_a_topic_that_was_made_anew() -> None:
    """The position would be valid in the new topic, which has more records."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        seen: list[int] = []

        def handle(_: TopicPartition, records: Sequence[Record]) -> None:
            seen.extend(record.offset for record in records)

        tail = Tail(log, ward.clock, [TP], client_id="c", handle=handle)
        task = asyncio.create_task(tail.run())
        ward.write(TP, [Message("t", b"v")] * 3)
        await tail.read_to({TP: 3})
        ward.delete(["t"])
        ward.create([NewTopic("t", 1, 1, {})])
        ward.write(TP, [Message("t", b"v")] * 5)
        await ward.clock.sleep(10.0)
        assert seen == [0, 1, 2, 0, 1, 2, 3, 4]
        assert tail.caught_up()
        task.cancel()

    play(scenario)


def test_paused_partitions_and_those_nobody_asks_for_are_no_stall() -> None:
    """Backpressure and creditless waiting may last for hours; so may a cluster that is away."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        consumer = await log.consumer(client_id="c")
        consumer.assign([TP])
        ward.write(TP, [Message("t", b"v")])
        consumer.pause(TP)
        assert await poll_for(consumer, ward, 300.0) == []
        consumer.resume(TP)
        for _ in range(200):
            assert not await consumer.poll(timeout_seconds=1.0, partitions=[])
        ward.go_away()
        assert await poll_for(consumer, ward, 300.0) == []
        ward.come_back()
        assert await poll_for(consumer, ward, 10.0) == [0]
        assert ward.built == 1
        await consumer.close()

    play(scenario)


def test_a_cluster_that_goes_away_while_records_wait_is_no_stall() -> None:
    """The last look before the outage found unread records; the time of the outage does not count."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        consumer = await log.consumer(client_id="c")
        consumer.assign([TP])
        ward.states[1] = "silent"
        ward.write(TP, [Message("t", b"v")])
        assert await poll_for(consumer, ward, LIMITS.look * 3) == []
        ward.go_away("fails")
        assert await poll_for(consumer, ward, LIMITS.look * LIMITS.stuck * 2) == []
        assert ward.built == 1
        ward.states[1] = "well"
        ward.come_back()
        assert await poll_for(consumer, ward, 10.0) == [0]
        assert ward.built == 1
        await consumer.close()

    play(scenario)
