"""The watchdog's policy, and a watched consumer whose client falls silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from shared.clock import LoopClock
from shared.errors import LogError, LogUnavailable, TopicMadeAnew
from shared.kafka.client.watchdog import Reason, Standing, Vitals, WatchdogLimits, diagnose, may_rebuild, observe, pause_seconds
from shared.kafka.client.watched import ConsumerGaveUp, WatchedConsumer, WatchedLog
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Consumer, Message, NewTopic, Record, TopicPartition
from shared.processing.tail import Tail
from tests.support import virtual_loop
from tests.support.log_bench import Recorder

TP = TopicPartition("t", 0)
LIMITS = WatchdogLimits()


def vitals(now: float, *, unassigned_since: float | None = None, progress: dict[TopicPartition, Standing] | None = None) -> Vitals:
    return Vitals(now, unassigned_since, progress or {})


def test_a_partition_is_stuck_when_it_is_behind_and_has_not_moved() -> None:
    """Behind and unmoved for the limit: rebuilt. Moved, caught up or not watched meanwhile: the time starts again."""
    behind = observe({}, {TP: (3, 9)}, 100.0)
    assert diagnose(vitals(100.0 + LIMITS.stuck - 0.1, progress=behind), LIMITS) is None
    assert diagnose(vitals(100.0 + LIMITS.stuck, progress=observe(behind, {TP: (3, 12)}, 120.0)), LIMITS) is Reason.STUCK_PARTITION
    moved = observe(behind, {TP: (4, 9)}, 120.0)
    assert diagnose(vitals(100.0 + LIMITS.stuck, progress=moved), LIMITS) is None
    unwatched = observe(observe(behind, {}, 110.0), {TP: (3, 9)}, 120.0)
    assert diagnose(vitals(100.0 + LIMITS.stuck, progress=unwatched), LIMITS) is None


def test_idle_is_not_stuck() -> None:
    """A partition that was caught up for an hour is not stuck the moment a record arrives."""
    idle = observe({}, {TP: (5, 5)}, 0.0)
    assert diagnose(vitals(3600.0, progress=idle), LIMITS) is None
    fresh = observe(idle, {TP: (5, 6)}, 3600.0)
    assert diagnose(vitals(3600.0 + LIMITS.stuck - 1.0, progress=fresh), LIMITS) is None
    assert diagnose(vitals(3600.0 + LIMITS.stuck, progress=fresh), LIMITS) is Reason.STUCK_PARTITION


def test_a_client_that_does_not_tell_its_position_is_stuck() -> None:
    """The cluster answers the probe, the consumer does not: position unknown for the whole limit."""
    unknown = observe(observe({}, {TP: (None, 0)}, 0.0), {TP: (None, 0)}, 20.0)
    assert diagnose(vitals(LIMITS.stuck, progress=unknown), LIMITS) is Reason.STUCK_PARTITION


def test_waiting_for_an_assignment_has_a_limit() -> None:
    """And while it waits, old standings do not count."""
    stuck = {TP: Standing(1, 0.0, behind=True)}
    assert diagnose(vitals(LIMITS.unassigned - 1, unassigned_since=0.0, progress=stuck), LIMITS) is None
    assert diagnose(vitals(LIMITS.unassigned, unassigned_since=0.0), LIMITS) is Reason.NO_ASSIGNMENT


@given(st.lists(st.floats(0.0, 5_000.0), max_size=10), st.floats(0.0, 5_000.0), st.floats(0.0, 0.999))
def test_rebuilds_are_few_and_spread(rebuilt_at: list[float], now: float, unit: float) -> None:
    """At most `rebuilds` within the window; pauses lie between zero and the cap."""
    past = [at for at in rebuilt_at if at <= now]
    recent = [at for at in past if now - at < LIMITS.rebuild_window]
    assert may_rebuild(past, now, LIMITS) == (len(recent) < LIMITS.rebuilds)
    assert 0.0 <= pause_seconds(len(past), unit, LIMITS) < LIMITS.pause_cap


class Patient:
    """A consumer that may fall ill: "silent" polls return nothing although records are there, "hung" ones never
    return, "broken" ones raise.
    """

    def __init__(self, inner: Consumer, state: Callable[[], str]) -> None:
        self._inner, self._state = inner, state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def poll(
        self, *, timeout_seconds: float, max_records: int | None = None, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        if self._state() == "silent":
            await LoopClock().sleep(timeout_seconds)
            return {}
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
        self.create([NewTopic("t", 1, 1, {})])

    async def consumer(self, **options: Any) -> Any:
        inner = await super().consumer(**options)
        if options["client_id"].endswith("-watchdog"):
            return inner
        self.built += 1
        number = self.built
        return Patient(inner, lambda: self.states[number])


def play(scenario: Callable[[Ward, WatchedLog], Awaitable[None]]) -> None:
    async def run() -> None:
        ward = Ward()
        await scenario(ward, WatchedLog(ward, ward.clock, Random(3), service="test-watchdog"))

    virtual_loop.run(run())


async def poll_for(consumer: WatchedConsumer, log: MemoryLog, seconds: float) -> list[int]:
    """Offsets that come within `seconds`."""
    until = log.clock.monotonic() + seconds
    seen: list[int] = []
    while log.clock.monotonic() < until:
        with contextlib.suppress(LogUnavailable):
            for records in (await consumer.poll(timeout_seconds=1.0)).values():
                seen += [record.offset for record in records]
    return seen


def rebuilds(reason: Reason) -> float:
    return REGISTRY.get_sample_value("tutti_consumer_rebuilds_total", {"service": "test-watchdog", "reason": reason.value}) or 0.0


@pytest.mark.parametrize(("state", "reason"), [("silent", Reason.STUCK_PARTITION), ("hung", Reason.HUNG_POLL)])
def test_a_reader_without_group_goes_on_where_it_was(state: str, reason: Reason) -> None:
    """Rebuilt once and counted; every record comes exactly once although nothing was committed."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        before = rebuilds(reason)
        consumer = await log.consumer(client_id="c")
        consumer.assign([TP])
        ward.write(TP, [Message("t", b"v")] * 3)
        assert await poll_for(consumer, ward, 10.0) == [0, 1, 2]
        ward.states[1] = state
        ward.write(TP, [Message("t", b"v")] * 2)
        assert await poll_for(consumer, ward, 60.0) == [3, 4]
        assert (ward.built, rebuilds(reason) - before) == (2, 1.0)
        await consumer.close()

    play(scenario)


def test_a_topic_made_anew_during_a_rebuild_is_told() -> None:
    """The position would be valid in the new topic, which has more records."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        consumer = await log.consumer(client_id="c")
        consumer.assign([TP])
        ward.write(TP, [Message("t", b"v")] * 3)
        assert await poll_for(consumer, ward, 10.0) == [0, 1, 2]
        ward.states[1] = "silent"
        ward.delete(["t"])
        ward.create([NewTopic("t", 1, 1, {})])
        ward.write(TP, [Message("t", b"v")] * 5)
        with pytest.raises(TopicMadeAnew):
            await poll_for(consumer, ward, 60.0)
        assert ward.built == 2
        assert await poll_for(consumer, ward, 10.0) == [0, 1, 2, 3, 4]
        await consumer.close()

    play(scenario)


def test_a_tail_whose_consumer_is_given_up_is_told_of_a_topic_made_anew() -> None:
    """It goes on with a new consumer where it was, but in another topic at the beginning."""

    async def scenario(ward: Ward, _: WatchedLog) -> None:
        seen: list[int] = []

        async def start(consumer: Consumer) -> Mapping[TopicPartition, int]:
            return await consumer.beginning_offsets([TP])

        def handle(_: TopicPartition, records: Sequence[Record]) -> None:
            seen.extend(record.offset for record in records)

        tail = Tail(ward, ward.clock, [TP], client_id="c", service="test-watchdog", start=start, handle=handle)
        task = asyncio.create_task(tail.run())
        ward.write(TP, [Message("t", b"v")] * 3)
        await ward.clock.sleep(2.0)
        ward.states[1] = "broken"
        await ward.clock.sleep(0.6)
        ward.delete(["t"])
        ward.create([NewTopic("t", 1, 1, {})])
        ward.write(TP, [Message("t", b"v")] * 5)
        await ward.clock.sleep(5.0)
        assert seen == [0, 1, 2, 0, 1, 2, 3, 4]
        assert ward.built == 2
        task.cancel()

    play(scenario)


def test_a_group_member_rejoins_and_redelivers_from_the_commit() -> None:
    """To the service a rebuild is a rebalance: revoked, assigned, and on from the committed offset."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        recorder = Recorder()
        consumer = await log.consumer(client_id="c", group="g")
        await consumer.subscribe(["t"], recorder)
        ward.write(TP, [Message("t", b"v")] * 3)
        assert await poll_for(consumer, ward, 10.0) == [0, 1, 2]
        await consumer.commit({TP: 2})
        ward.states[1] = "silent"
        ward.write(TP, [Message("t", b"v")])
        assert await poll_for(consumer, ward, 60.0) == [2, 3]
        assert [kind for kind, _ in recorder.events] == ["assigned", "revoked", "assigned"]
        assert ward.group("g").member_count() == 1
        await consumer.close()

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
        assert await poll_for(consumer, ward, LIMITS.stuck * 2) == []
        assert ward.built == 1
        ward.states[1] = "well"
        ward.come_back()
        assert await poll_for(consumer, ward, 10.0) == [0]
        assert ward.built == 1
        await consumer.close()

    play(scenario)


def test_a_consumer_that_stops_again_and_again_is_given_up() -> None:
    """Three rebuilds within the window, then ConsumerGaveUp: the process ends with an error and is started anew."""

    async def scenario(ward: Ward, log: WatchedLog) -> None:
        ward.states = defaultdict(lambda: "silent")
        consumer = await log.consumer(client_id="c")
        consumer.assign([TP])
        ward.write(TP, [Message("t", b"v")])
        with pytest.raises(ConsumerGaveUp):
            await poll_for(consumer, ward, 600.0)
        assert ward.built == 1 + LIMITS.rebuilds
        await consumer.close()

    play(scenario)
