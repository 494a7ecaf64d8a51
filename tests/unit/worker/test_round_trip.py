"""The credit round trip: measured where steps wait, bounded, and good for keeping a node busy behind a slow one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.round_trip import MOST_SECONDS, SLACK, RoundTrip
from shared.contracts.credits import CREDITS, Credits
from shared.kafka.port import TopicPartition
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import World, play, step


def measured(samples: int, seconds: float, *, waiting: int = 100, least: float = 0.05) -> float:
    """After so many places that were each used so late."""
    trip, now = RoundTrip(least), 0.0
    for number in range(samples):
        trip.offered(number, 1, now, waiting=waiting)
        now += seconds
        trip.arrived(number + 1, now)
    return trip.seconds


def test_it_follows_what_is_measured() -> None:
    """Up within a few dozen steps, and never below where it began."""
    assert measured(40, 0.2) == pytest.approx(SLACK * 0.2, rel=0.05)
    assert measured(40, 0.001) == 0.05
    assert measured(1, 0.2) < 0.09, "one late step is no trend"


def test_without_waiting_steps_nothing_is_measured() -> None:
    """How long a place lies idle is no round trip; nor is what took very long."""
    assert measured(40, 0.2, waiting=0) == 0.05
    assert measured(40, 0.2, waiting=1) == 0.05, "the one may have been placed elsewhere"
    assert measured(40, MOST_SECONDS + 0.1) == 0.05


def test_steps_under_way_for_earlier_places_do_not_count() -> None:
    """Ten places were offered; the record that offers the eleventh is answered by the eleventh step."""
    trip = RoundTrip(0.01)
    trip.offered(0, 10, 0.0, waiting=100)
    trip.arrived(1, 0.1)
    before = trip.seconds
    trip.offered(1, 10, 0.1, waiting=100)
    trip.arrived(10, 0.15)
    assert trip.seconds == before
    trip.arrived(11, 0.4)
    assert trip.seconds == pytest.approx(before + (SLACK * 0.3 - before) / 8)


def test_places_that_are_taken_back_may_be_used_nevertheless() -> None:
    """A record that allows less and one that allows the same again tell routers nothing new: their steps may be under way already."""
    trip = RoundTrip(0.01)
    trip.offered(0, 5, 0.0, waiting=100)
    trip.arrived(1, 0.2)
    before = trip.seconds
    trip.offered(1, 2, 0.2, waiting=100)
    trip.offered(1, 4, 0.21, waiting=100)
    trip.arrived(5, 0.22)
    assert trip.seconds == before


def test_another_mailbox_counts_anew() -> None:
    """Its positions are lower; the old one's must not keep it from being measured."""
    trip = RoundTrip(0.01)
    trip.offered(1_000, 5, 0.0, waiting=100)
    trip.offered(10, 5, 1.0, waiting=100)
    trip.arrived(11, 1.2)
    assert trip.seconds > 0.01


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.floats(0, 2), st.integers(0, 40)), max_size=200))
def test_it_is_bounded(drawn: list[tuple[int, int, float, int]]) -> None:
    """Whatever is offered and read: between the least and the most, with bounded memory."""
    trip, read, now = RoundTrip(0.05), 0, 0.0
    for more, offers, gap, waiting in drawn:
        read, now = read + more, now + gap
        trip.arrived(read, now)
        trip.offered(read, offers, now, waiting=waiting)
        assert 0.05 <= trip.seconds <= SLACK * MOST_SECONDS
        assert len(trip._under_way) <= 64


async def _late_router(world: World, seconds: float) -> None:
    """Uses every place, `seconds` after it reads of it; says that a thousand steps wait."""
    credits_ = TopicPartition(world.topics.credits, 0)
    sent, said_at = 0, -1.0
    loop = asyncio.get_running_loop()
    while True:
        if world.clock.monotonic() - said_at >= 1.0:
            said_at = world.clock.monotonic()
            world.presence("r", 1_000)
        records = [CREDITS.validate_json(r.value or b"") for r in world.log.existing(credits_).records[-2:]]
        for record in records:
            if isinstance(record, Credits):
                free = sum(record.read.values()) + record.offers.get("r", 0) - sent
                steps = [step(1 + sent + n) for n in range(max(0, free))]
                sent += len(steps)
                loop.call_later(seconds, world.route, *steps)
        await world.clock.sleep(0.002)


def test_a_slow_credit_loop_leaves_no_slot_idle() -> None:
    """Two slots, calls of 20 ms, 0.2 s from offer to step: near a hundred calls a second, not the ten of two places a round trip."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pieces=("a",), pause=0.02))
        async with world.worker(backend, slots=2):
            router = asyncio.create_task(_late_router(world, 0.2))
            await world.clock.sleep(8.0)
            begun = len(backend.calls)
            await world.clock.sleep(4.0)
            done = len(backend.calls) - begun
            router.cancel()
            await asyncio.gather(router, return_exceptions=True)
            await world.clock.sleep(5.0)
            assert backend.running == 0
            assert done > 4 * 60

    play(scenario)
