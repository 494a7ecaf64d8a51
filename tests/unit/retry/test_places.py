"""Places in line: what is counted agrees with what the policies really serve first; no number where too little is known."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts.base import CLASSES, PriorityClass
from shared.scheduling.class_shares import ClassShares
from shared.scheduling.fair_queue import TenantRing
from shared.scheduling.places import AheadInLine, Pace, PlaceInLine, differs, error_of, in_words, place_in_line

INTERACTIVE, STANDARD, BATCH = CLASSES
MINE = "mine"


@dataclass(eq=False)
class Piece:
    tenant: str
    lane: str = ""
    cost: int = 1
    arrived_at: float = 0.0


def pace(per_second: float, seconds: float = 60.0) -> Pace:
    found = Pace()
    found.look(0.0, busy=True)
    for second in range(1, int(seconds) + 1):
        found.news += int(per_second)
        found.look(float(second), busy=True)
    return found


def served_before(waiting: dict[PriorityClass, dict[str, int]], own: PriorityClass) -> int:
    """How many the real policies serve before my last one."""
    rings = {each: TenantRing[Piece](1) for each in CLASSES}
    last = Piece(MINE)
    for each, tenants in waiting.items():
        for tenant, count in tenants.items():
            for _ in range(count):
                rings[each].add(Piece(tenant))
    rings[own].add(last)
    shares, served = ClassShares(0.9, 10.0), 0
    while True:
        ages = {each: 0.0 for each in CLASSES if len(rings[each])}
        chosen = shares.order(ages)[0]
        piece = rings[chosen].take(lambda _: True)
        if piece is last:
            return served
        if len(ages) == 1:
            shares.served_alone(chosen, 1)
        else:
            shares.served(chosen, 1, ages)
        served += 1


counts = st.dictionaries(st.sampled_from(["a", "b", "c", MINE]), st.integers(0, 60), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(CLASSES, counts)), st.sampled_from(CLASSES))
def test_a_place_is_what_the_policies_serve(waiting: dict[PriorityClass, dict[str, int]], own: PriorityClass) -> None:
    others = {each: sum(tenants.values()) for each, tenants in waiting.items() if each is not own}
    mine = waiting[own].get(MINE, 0)
    ahead = AheadInLine(own, own=mine, others=[n for tenant, n in waiting[own].items() if tenant != MINE], classes=others)
    found, real = place_in_line(ahead, pace(10)), served_before(waiting, own)
    turn = {INTERACTIVE: 5, STANDARD: 20, BATCH: 50}[own]
    assert abs(found.place - 1 - real) <= turn + real // 5, "one turn of the class, or a fifth"


def test_of_two_tenants_the_small_one_waits_for_its_turns_alone() -> None:
    assert place_in_line(AheadInLine(STANDARD, own=1, others=[1_000]), Pace()).place == 4


def test_what_lies_unread_may_be_anybodys() -> None:
    found = place_in_line(AheadInLine(STANDARD, unread=100), pace(10))
    assert found.place == 101
    assert found.seconds == pytest.approx(10.1, rel=0.05)
    assert found.earliest == 0.0
    assert found.latest is not None
    assert found.latest > 10


def test_the_range_holds_the_prediction_and_narrows_with_what_was_seen() -> None:
    few, many = place_in_line(AheadInLine(BATCH, own=50), pace(1, 20)), place_in_line(AheadInLine(BATCH, own=50), pace(50))
    for found in (few, many):
        assert found.earliest is not None
        assert found.seconds is not None
        assert found.latest is not None
        assert found.earliest <= found.seconds <= found.latest
    assert few.latest / few.seconds > many.latest / many.seconds  # type: ignore[operator]


@pytest.mark.parametrize(
    "case", [(AheadInLine(BATCH, own=3), Pace()), (AheadInLine(BATCH, own=3), pace(1, 5)), (AheadInLine(BATCH, own=3, free=3), Pace())]
)
def test_nothing_is_promised_where_nothing_is_known(case: tuple[AheadInLine, Pace]) -> None:
    assert place_in_line(*case) == PlaceInLine(4)


def test_where_places_are_free_it_starts_at_once() -> None:
    assert place_in_line(AheadInLine(BATCH, own=3, free=4), Pace()) == PlaceInLine(4, 0.0, 0.0)
    found = place_in_line(AheadInLine(BATCH, own=3, free=2), pace(1))
    assert found.seconds == pytest.approx(2, rel=0.05)


def test_a_pace_that_stops_falls_and_idle_time_does_not_count() -> None:
    stalled, idle = pace(10), pace(10)
    idle.look(61.0, busy=False)
    stalled.look(90.0, busy=True)
    idle.look(90.0, busy=False)
    assert stalled.per_second is not None
    assert stalled.per_second < 7
    assert idle.per_second == pytest.approx(10, rel=0.05)


@settings(max_examples=300)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=5), st.integers(0, 10**6), st.sampled_from(CLASSES), st.randoms())
def test_more_ahead_is_never_an_earlier_place(own: int, others: list[int], unread: int, of: PriorityClass, random: Random) -> None:
    classes = {each: random.randrange(10**6) for each in CLASSES if each is not of}
    ahead = AheadInLine(of, own, others, unread, classes)
    for more in (ahead._replace(own=own + 1), ahead._replace(unread=unread + 1), ahead._replace(others=[*others, 1])):
        assert place_in_line(more, Pace()).place >= place_in_line(ahead, Pace()).place


def test_words_and_when_they_are_told_again() -> None:
    assert in_words(12, 40.4) == "place 12, starts in ~40 s"
    assert in_words(3, None) == "place 3"
    assert in_words(900, 600.0) == "place 900, starts in ~10 min"
    assert in_words(1, 0.2) == "place 1, starts in ~1 s"
    assert not differs(PlaceInLine(100, 50.0), PlaceInLine(98, 49.0))
    assert differs(PlaceInLine(100, 50.0), PlaceInLine(89, 45.0))
    assert differs(PlaceInLine(5, None), PlaceInLine(5, 3.0))
    assert not differs(PlaceInLine(1, 3.0), PlaceInLine(1, 2.0))


def test_an_error_is_a_part_of_the_real_wait() -> None:
    assert error_of(30.0, 20.0) == 0.5
    assert error_of(0.0, 0.0) == 0.0
