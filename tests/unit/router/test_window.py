"""Laws of a partition's window."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.kafka.port import TopicPartition
from shared.processing.window import Window, WindowBounds
from tests.support.routing import FakeRecord

BOUNDS = WindowBounds(open=4, span=16, records=12, bytes=100_000)


def records(*offsets: int, size: int = 10) -> list[FakeRecord]:
    return [FakeRecord(offset=offset, value=b"x" * size) for offset in offsets]


def test_a_stuck_record_does_not_hold_the_others() -> None:
    """With the first record waiting, the others are taken and finished up to the span; nothing is committed past it."""
    window = Window(TopicPartition("t", 0), WindowBounds(open=4, span=16, records=100), 0)
    window.receive(records(*range(40)))
    assert window.take() is not None
    finished = 0
    while (record := window.take()) is not None:
        window.finish(record.offset)
        finished += 1
    assert (finished, window.commit_offset) == (15, 0)
    window.finish(0)
    assert window.commit_offset == 16
    assert window.take() is not None


def test_large_records_fill_a_window_by_bytes() -> None:
    """Memory is bounded whatever the records' size, open ones included."""
    window = Window(TopicPartition("t", 0), BOUNDS, 0)
    window.receive(records(0, 1, size=60_000))
    assert window.full
    assert not window.half_empty
    for record in (window.take(), window.take()):
        assert record is not None
        assert window.full or not window.half_empty  # type: ignore[unreachable]
        window.finish(record.offset)
    assert window.half_empty


@given(st.lists(st.integers(1, 3), max_size=20), st.data())
def test_holes_in_the_log_are_no_work(gaps: list[int], data: st.DataObject) -> None:
    """Offsets that are not there (control records, compaction) neither block nor are waited for."""
    window = Window(TopicPartition("t", 0), WindowBounds(open=100, span=1000), 0)
    offsets = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    if offsets:
        window.receive(records(*offsets))
    taken = [window.take() for _ in offsets]
    for record in data.draw(st.permutations(taken)):
        assert record is not None
        window.finish(record.offset)
    assert window.commit_offset == (offsets[-1] + 1 if offsets else 0)


class WindowMachine(RuleBasedStateMachine):
    """The commit offset never passes an unfinished record, and everything before it is finished; the bounds hold."""

    @initialize(start=st.integers(0, 1000))
    def begin(self, start: int) -> None:
        self.window = Window(TopicPartition("t", 0), BOUNDS, start)
        self.start = self.next = start
        self.open: set[int] = set()
        self.finished: set[int] = set()

    @precondition(lambda self: not self.window.full)
    @rule(count=st.integers(1, 6))
    def arrive(self, count: int) -> None:
        self.window.receive(records(*range(self.next, self.next + count)))
        self.next += count

    @rule()
    def take(self) -> None:
        record = self.window.take()
        if record is not None:
            assert record.offset == self.start + len(self.open) + len(self.finished)
            self.open.add(record.offset)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.open)))
        self.window.finish(offset)
        self.open.remove(offset)
        self.finished.add(offset)

    @invariant()
    def commits_only_what_is_finished(self) -> None:
        commit = self.window.commit_offset
        assert all(offset in self.finished for offset in range(self.start, commit))
        assert commit == self.next or commit not in self.finished

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.open) <= BOUNDS.open
        assert len(self.window) <= BOUNDS.records + 5
        if self.open:
            assert max(self.open) - min(self.open) < BOUNDS.span


WindowMachine.TestCase.settings = settings(stateful_step_count=40)
TestWindowLaw = WindowMachine.TestCase
