"""The cap: a partition of which most records die is stopped, an ordinary share of poison is not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, NewTopic, TopicPartition, Unreadable
from shared.processing.dead_letters import DeadLetterCap
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from shared.processing.window import Window, WindowBounds
from shared.settings import ClusterSettings, DeadLetterCapSettings
from shared.topics import Topics
from tests.support.routing import FakeRecord

TP = TopicPartition("steps.chat.standard", 3)
DEAD = FakeRecord(offset=0, value=b"x")
LIMIT = DeadLetterCapSettings(share=0.5, window=10, at_least=4)


def run(fates: str, limit: DeadLetterCapSettings = LIMIT) -> int | None:
    """`+` a good record, `-` a dead one; returns after how many it stopped."""
    cap = DeadLetterCap(TP, limit)
    for number, fate in enumerate(fates, 1):
        cap.read()
        if fate == "-" and cap.died(DEAD) is not None:
            return number
    return None


@pytest.mark.parametrize(
    ("fates", "stopped"),
    [
        ("---", None),
        ("----", 4),
        ("+-" * 50, None),
        ("--+" * 4, 5),
        ("+" * 100 + "-" * 10, 106),
        ("-" * 3 + "+" * 20 + "-" * 3 + "+" * 20 + "---", None),
    ],
)
def test_most_of_the_last_records_must_have_died_and_not_only_a_few(fates: str, stopped: int | None) -> None:
    """More than the share of the window, and at least so many; what lies further back counts no longer."""
    assert run(fates) == stopped


def test_a_share_of_one_never_stops() -> None:
    """The operator's way to go on."""
    assert run("-" * 1_000, DeadLetterCapSettings(share=1, window=10, at_least=1)) is None


@given(st.text(alphabet="+-", max_size=200), st.integers(1, 20), st.integers(1, 20), st.floats(0.1, 1))
def test_it_stops_exactly_when_the_window_says_so(fates: str, window: int, at_least: int, share: float) -> None:
    """Against the definition, record by record."""
    expected = None
    for number in range(1, len(fates) + 1):
        looked_at = fates[max(0, number - window) : number]
        dead = looked_at.count("-")
        if fates[number - 1] == "-" and dead >= at_least and dead > share * len(looked_at):
            expected = number
            break
    assert run(fates, DeadLetterCapSettings(share=share, window=window, at_least=at_least)) == expected


def test_what_an_erased_tenant_has_left_counts_against_nobody() -> None:
    """A backlog whose key went with its tenant is passed over to its end."""
    cap = DeadLetterCap(TP, LIMIT)
    for offset in range(1_000):
        cap.read()
        assert cap.died(Unreadable(*TP, offset, "its key is gone with its tenant", shredded=True)) is None
    assert [cap.died(DEAD) is None for _ in range(4)] == [True, True, True, True]
    assert run("-" * 4) == 4


def test_the_default_is_generous() -> None:
    """Two hundred at least, and more than half."""
    assert run("-" * 199, ClusterSettings().dead_letter_cap) is None
    assert run("-" * 200, ClusterSettings().dead_letter_cap) == 200


def test_a_stopped_window_gives_nothing_more_and_keeps_what_it_has() -> None:
    """Nothing is committed past what was not taken."""
    window = Window(TP, WindowBounds(), 0, DeadLetterCap(TP, LIMIT))
    window.receive([FakeRecord(offset=n, value=b"x") for n in range(20)])
    taken = 0
    while (record := window.take()) is not None:
        taken += 1
        window.died(record)
        window.finish(record.offset)
    assert (taken, window.commit_offset, window.buffered) == (4, 4, 16)
    assert "4 of the last 4 records of steps.chat.standard/3" in (window.stopped or "")


async def _intake() -> None:
    log = MemoryLog(LoopClock())
    log.create([NewTopic("t", 2, 1, {})])
    outbox, bounds = Outbox(log.clock, "test", Topics()), WindowBounds(records=50)
    intake = Intake(outbox, service="test", bounds=bounds, cap=LIMIT, clock=log.clock, arrived=lambda: None)
    await intake.join(log, "g", "c", ["t"])
    running = asyncio.create_task(intake.run())
    bad, good = TopicPartition("t", 0), TopicPartition("t", 1)
    log.write(bad, [Message("t", b"bad")] * 200)
    log.write(good, [Message("t", b"good")] * 200)
    for _ in range(60):
        await log.clock.sleep(0.1)
        for window in intake.windows.values():
            while (record := window.take()) is not None:
                if record.value == b"bad":
                    window.died(record)
                window.finish(record.offset)
        intake.relieve()
    await intake.commit()
    assert len(intake.stopped) == 1
    assert len(intake.windows[bad]) < 200
    assert log.group("g").offsets == {bad: 4, good: 200}
    running.cancel()


def test_one_partition_stands_still_the_others_go_on() -> None:
    """What is unread stays in Kafka: memory is bounded, and the next process begins where this one stopped."""
    virtual_loop.run(_intake())
