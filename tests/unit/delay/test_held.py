"""Laws of holding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delay.handlers import DelayReader
from services.delay.held import HeldRecords, Waiter, onward
from shared.contracts import headers
from shared.contracts.delayed import Delayed
from shared.errors import InvalidRecord
from shared.kafka.port import TopicPartition
from shared.processing.window import Window, WindowBounds
from shared.topics import Topics
from tests.support.routing import FakeRecord

NOW = 1_700_000_000.0
TOPICS = Topics()


def window() -> Window:
    return Window(TopicPartition("delays.5s", 0), WindowBounds(), 0)


def record(
    due_at: float, *, topic: str = "delays.5s", written_at: float = NOW, target: str = "jobs.batch", partition: int = 0
) -> FakeRecord:
    value = Delayed(topic=target, partition=partition, due_at=due_at, value=b"v").to_bytes()
    return FakeRecord(topic, 0, 0, int(written_at * 1000), None, value)


def waiter(due_at: float, **changes: Any) -> Waiter:
    return DelayReader(TOPICS).read(record(due_at, **changes), window(), NOW)


def test_it_leaves_its_tier_after_the_tiers_time_or_when_due() -> None:
    """Whichever is earlier."""
    assert waiter(NOW + 60).ready_at == NOW + 5
    assert waiter(NOW + 2).ready_at == NOW + 2


def test_in_its_last_second_it_is_held() -> None:
    """Neither hopped nor forwarded before it is due."""
    held = HeldRecords()
    held.add(waiter(NOW + 5.5))
    assert held.take(NOW + 5.0, 10) == []
    assert held.next_at == NOW + 5.5
    (ready,) = held.take(NOW + 5.5, 10)
    assert onward(ready, TOPICS, NOW + 5.5).topic == "jobs.batch"


def test_it_hops_on_unchanged() -> None:
    """The next tier gets the very bytes."""
    held = HeldRecords()
    first = waiter(NOW + 60)
    held.add(first)
    (ready,) = held.take(NOW + 5.0, 10)
    message = onward(ready, TOPICS, NOW + 5.0)
    assert (message.topic, message.value) == ("delays.30s", first.record.value)


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0, 30), max_size=10))
def test_nothing_leaves_early_and_nothing_is_kept_late(dues: list[float], steps: list[float]) -> None:
    """At every moment exactly the ready ones are taken, earliest first, and each once."""
    held, now, taken = HeldRecords(), NOW, 0
    for due in dues:
        held.add(waiter(NOW + due))
    for step in [*steps, 1000.0]:
        now += step
        ready = held.take(now, 1000)
        taken += len(ready)
        assert [w.ready_at for w in ready] == sorted(w.ready_at for w in ready)
        assert all(w.ready_at <= now for w in ready)
        assert held.next_at is None or held.next_at > now
    assert taken == len(dues)


def test_what_is_lost_is_dropped() -> None:
    """Records of a partition that has another owner are his."""
    held = HeldRecords()
    mine, lost = waiter(NOW + 1), waiter(NOW + 1)
    lost.window.lost = True
    held.add(mine)
    held.add(lost)
    assert held.take(NOW + 2, 10) == [mine]
    held.add(lost)
    held.drop_lost()
    assert len(held) == 0


@pytest.mark.parametrize(
    "bad",
    [
        FakeRecord("delays.1s", value=None),
        FakeRecord("delays.1s", value=b"\xff"),
        FakeRecord("delays.1s", value=b"{}"),
        record(NOW, target="outcomes"),
        record(NOW, target="nowhere"),
        record(NOW, partition=6),
        FakeRecord("delays.1s", value=record(NOW).value, headers=(("version", b"2"),)),
        FakeRecord("delays.1s", value=record(NOW).value, headers=(("version", b"x"),)),
    ],
)
def test_what_can_never_be_sent_on_is_refused(bad: FakeRecord) -> None:
    """Only jobs and steps come back from delay, to partitions that exist."""
    with pytest.raises(InvalidRecord):
        DelayReader(TOPICS).read(bad, window(), NOW)


def waiting(seconds: float, *, tier: str = "delays.5s", waited: float = 0.0, read_at: float = NOW) -> Waiter:
    """A record that waits for so many seconds, read at `read_at` by a clock that has nothing to do with who wrote it."""
    delayed = Delayed(topic="steps.chat.batch", partition=0, seconds=seconds, waited_seconds=waited, value=b"v")
    return DelayReader(TOPICS).read(FakeRecord(tier, 0, 0, 17, None, delayed.to_bytes()), window(), read_at)


@pytest.mark.parametrize("skew", [-300.0, 0.0, 20.0, 300.0])
def test_so_many_seconds_are_counted_from_when_the_record_is_read(skew: float) -> None:
    """Whatever the writer's clock and the record's timestamp say; and what was really waited is what the record says then."""
    held, now = HeldRecords(), NOW + skew
    held.add(waiting(3.0, read_at=now))
    assert held.take(now + 2.9, 10) == []
    (ready,) = held.take(now + 3.2, 10)
    message = onward(ready, TOPICS, now + 3.2)
    assert message.topic == "steps.chat.batch"
    assert headers.Envelope(message.headers).waited() == pytest.approx(3.2)


def test_what_is_longer_than_its_tier_hops_on_with_the_rest() -> None:
    """No second of it is lost or waited twice, however long a hop takes."""
    held = HeldRecords()
    held.add(waiting(12.0, waited=1.0))
    (first,) = held.take(NOW + 5.0, 10)
    hop = onward(first, TOPICS, NOW + 5.0)
    rest = Delayed.model_validate_json(hop.value or b"")
    assert (hop.topic, rest.due_at) == ("delays.5s", None)
    assert rest.seconds == pytest.approx(7.0)
    assert rest.waited_seconds == pytest.approx(6.0)
    again = waiting(rest.seconds or 0.0, waited=rest.waited_seconds, read_at=NOW + 60.0)
    assert again.due_at == NOW + 67.0
    assert headers.Envelope(onward(again, TOPICS, NOW + 67.0).headers).waited() == pytest.approx(13.0)


def test_a_record_says_either_when_or_for_how_long() -> None:
    """Both, or neither, is no delayed record."""
    for when in ({}, {"due_at": 1.0, "seconds": 1.0}):
        with pytest.raises(ValueError, match="either due_at or seconds"):
            Delayed(topic="t", value=b"v", **when)


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"nan", b"1e9", b"1" * 12, b"\xff"])
def test_a_header_that_says_no_time_says_none(value: bytes) -> None:
    """A step is not lost for it."""
    assert headers.Envelope(((headers.WAITED, value),)).waited() == 0.0
