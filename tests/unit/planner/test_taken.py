"""TakenRecords: the bitmap of taken records. What is written, what it covers, when the watermark may rely on it, and when it is let go."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.history.upkeep import upkeep
from services.planner.job.out import OutJob
from services.planner.round import Round
from services.planner.state.book import Book
from services.planner.state.policy import Policy
from services.planner.state.taken import MANY_OUT, NOTHING, Offsets, packed, unpacked
from services.planner.state.watermark import watermark
from shared.contracts.event import EVENT
from shared.contracts.taken import MOST_TAKEN, MOST_TAKEN_BYTES, TakenAhead
from tests.unit.planner.desk import appended

TOPIC, IDS = "jobs.batch@1", {"jobs.batch": "1"}


class Stage:
    """One home whose round is acknowledged when told: jobs that are out, and what stands."""

    def __init__(self) -> None:
        self.book = Book(0, Policy(), Random(0))
        self.book.epoch = 0
        self.standing: Offsets | None = NOTHING
        self.book.taken.standing = lambda topic: self.standing if topic == TOPIC else None
        self.end = 1

    def out(self, *offsets: int, first: int = 1) -> None:
        for offset in offsets:
            self.book.out[f"j{offset}"] = OutJob(f"j{offset}", f"{TOPIC}/0/{offset}", offset, first, first)

    def round(self, expected: int, *, acknowledged: bool = True) -> list[TakenAhead]:
        """One upkeep with this next own offset; what it appends lies there."""
        round_ = Round.of(self.book, 1_700_000_000.0, 0.0)
        upkeep(round_, expected, 100)
        events = [EVENT.validate_json(value) for found in round_.events.values() for _, value in found]
        if acknowledged:
            appended(round_, expected)
        return [event for event in events if isinstance(event, TakenAhead)]

    def watermark(self, position: int, last_own: int) -> int:
        return watermark(self.book, {"jobs.batch": position}, last_own, IDS)[0]


@given(st.sets(st.integers(0, MOST_TAKEN - 1), max_size=200), st.integers(0, 10**12))
def test_what_is_written_is_read(offsets: set[int], base: int) -> None:
    """Any set within reach, and no more than that, whatever lies beyond."""
    bits = sum(1 << offset for offset in offsets)
    assert unpacked(packed(bits)) == bits == unpacked(packed(bits | 1 << MOST_TAKEN))
    found = Offsets(base, bits)
    assert all(base + offset in found for offset in offsets)
    assert base - 1 in found
    assert found.end == base + max(offsets, default=-1) + 1


@given(st.integers(0, 60), st.integers(0, 2**40), st.integers(0, 100))
def test_seen_from_another_base_it_says_the_same(base: int, bits: int, other: int) -> None:
    """All below the base counts."""
    found = Offsets(base, bits)
    assert all((offset in Offsets(other, found.since(other))) == (offset in found) for offset in range(other, 140))
    joined = found.joined(other, [other + 3, other - 1, other + MOST_TAKEN])
    assert {offset for offset in range(other, 140) if offset in joined} - {other + 3} <= set(filter(found.__contains__, range(140)))
    assert other + 3 in joined


def test_the_worst_bitmap_fits_its_field() -> None:
    """Noise cannot be coded in less."""
    assert len(packed(Random(1).getrandbits(MOST_TAKEN))) <= MOST_TAKEN_BYTES


def test_what_is_no_bitmap_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        unpacked(b"\xff\xff")


def test_the_watermark_passes_an_ended_job_once_its_bitmap_is_acknowledged() -> None:
    """And not the bitmap, until the position has passed its last bit."""
    stage = Stage()
    stage.out(7)
    stage.standing = Offsets(5, 0b100)
    assert stage.round(20) == [], "the watermark is not far behind"
    [event] = stage.round(40, acknowledged=False)
    assert (event.topic, event.base, unpacked(event.bits)) == (TOPIC, 5, 0b100)
    assert stage.watermark(5, 60) == 1
    stage = Stage()
    stage.out(7)
    stage.standing = Offsets(5, 0b100)
    stage.round(40)
    assert watermark(stage.book, {"jobs.batch": 5}, 60, IDS) == (40, ["j7"])
    assert stage.watermark(7, 60) == 40
    assert stage.watermark(8, 60) == 60
    assert stage.watermark(5, 60) == 1, "what was let go covers nothing"


def test_what_it_does_not_cover_holds_the_watermark() -> None:
    """A job that ended since, one of a topic that was made anew, one whose record still owes something."""
    stage = Stage()
    stage.out(7, 9)
    stage.standing = Offsets(5, 0b100)
    stage.round(40)
    assert watermark(stage.book, {"jobs.batch": 5}, 60, IDS) == (1, ["j7"])
    assert not stage.book.taken.covers("jobs.batch@2", 7)
    assert not stage.book.taken.covers("jobs.batch", 7)


def test_it_is_written_only_when_the_watermark_wants_to_pass() -> None:
    """No more than a few times for each stretch of history, also where it cannot help; and again before it is far behind."""
    stage = Stage()
    stage.out(*range(10, 20))
    stage.standing = None
    assert all(stage.round(expected) == [] for expected in range(30, 60))
    stage.standing = Offsets(5, (1 << 40) - 1)
    written = [expected for expected in range(60, 400) if stage.round(expected)]
    assert 2 <= len(written) <= 40
    stage.book.out.clear()
    later = [expected for expected in range(400, 800) if stage.round(expected)]
    assert 2 <= len(later) <= 5, "what is kept is written again, by distance"


def test_many_that_are_out_are_not_held_in_memory() -> None:
    """Though the watermark is near."""
    stage = Stage()
    stage.out(*range(10, 10 + MANY_OUT + 1), first=95)
    stage.standing = Offsets(5, (1 << MANY_OUT + 10) - 1)
    assert len(stage.round(100)) == 1
    assert len(watermark(stage.book, {"jobs.batch": 5}, 110, IDS)[1]) == MANY_OUT + 1


def test_the_newest_of_a_topic_counts_in_replay() -> None:
    book = Stage().book
    for offset, base, bits in ((3, 0, 0b10), (8, 2, 0b10)):
        event = TakenAhead(epoch=0, at=0.0, topic=TOPIC, base=base, bits=packed(bits))
        assert book.kept.restore(event, offset, 0.0)
    assert book.taken.known(TOPIC) == Offsets(2, 0b10)
    assert [offset for offset in range(6) if book.taken.covers(TOPIC, offset)] == [0, 1, 3]
    assert book.taken.lowest == 8
