"""What a record holds is that record's affair: tried a few times, then given up, and nothing around it suffers."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import InvalidRecord, NewerVersion
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import Record, Unreadable
from shared.processing.folding import fold_each
from shared.processing.tries import REMEMBERED, TRIES, Chore, GivenUp, Tries, place, read
from shared.telemetry.metrics import RECORDS_PASSED_OVER


def written(offset: int = 0, value: bytes | None = b"v") -> MemoryRecord:
    return MemoryRecord("t", 0, offset, 0, None, value, (), 0.0)


def test_a_place_is_given_up_after_a_few_tries() -> None:
    """Others are not concerned."""
    tries, at, other = Tries(), place(written(3)), place(written(4))
    assert [tries.failed(at) for _ in range(TRIES + 1)] == [2, 1, 0, 0]
    with pytest.raises(GivenUp, match="failed 3 times"):
        tries.begin(at)
    tries.begin(other)
    assert tries.at == other


def test_what_is_remembered_is_bounded() -> None:
    """The oldest is tried anew."""
    tries = Tries()
    for number in range(REMEMBERED + 1):
        for _ in range(TRIES):
            tries.failed(number)
    assert not tries.spent(0)
    assert tries.spent(1)


def test_reading_is_tried_again_and_given_up() -> None:
    """A passing defect costs nothing; one that stays makes this record a refused one. What is wrong on purpose is told at once."""
    failures: list[Exception] = [ValueError("a"), OverflowError("b")]

    def reader(record: Record) -> bytes | None:
        if failures:
            raise failures.pop()
        return record.value

    assert read(written(), reader) == b"v"
    failures = [OverflowError("secret")] * TRIES
    with pytest.raises(GivenUp, match="reading it failed 3 times: OverflowError") as caught:
        read(written(), reader)
    assert caught.value.code == "internal"
    for meant in (InvalidRecord("no"), NewerVersion("new")):
        failures = [meant]
        with pytest.raises(type(meant)):
            read(written(), reader)


def test_an_unreadable_record_is_never_taken_for_one_without_a_value() -> None:
    with pytest.raises(InvalidRecord, match="the checksum"):
        read(Unreadable("t", 0, 7, "offset 7: the checksum is wrong"), lambda record: record)


def test_followers_pass_over_what_cannot_be_folded() -> None:
    """Whatever is raised; it is counted by its code."""
    folded: list[int] = []

    def fold(record: Any) -> None:
        if record.value == b"bad":
            raise ZeroDivisionError
        folded.append(record.offset)

    before = {code: RECORDS_PASSED_OVER.labels("test", code)._value.get() for code in ("internal", "invalid_record")}
    fold_each("test", [written(0), written(1, b"bad"), Unreadable("t", 0, 2, "spoilt"), written(3, None)], fold)
    assert folded == [0, 3]
    after = {code: RECORDS_PASSED_OVER.labels("test", code)._value.get() for code in before}
    assert {code: after[code] - before[code] for code in before} == {"internal": 1, "invalid_record": 1}


def test_a_chore_is_done_at_its_every_turn() -> None:
    """Whatever it raises: what fails again and again is told, until it succeeds."""
    tries = Tries()
    for _ in range(TRIES + 5):
        with tries.chore("counting"):
            raise OverflowError
    assert tries.undone == ("counting fails again and again; the log says why",)
    with tries.chore("counting"):
        pass
    assert not tries.undone


def test_a_chore_that_spoils_its_round_is_left_undone() -> None:
    """Known by its part; whoever is blamed is what was begun last."""
    tries, chore = Tries(), Chore("counting", "beans")
    for _ in range(TRIES):
        assert tries.may(chore)
        tries.blame()
    assert not tries.may(chore)
    assert tries.may(Chore("counting", "peas"))
    assert tries.undone == ("counting of beans fails again and again; the log says why",)
