"""Timers, intake queues, remembered ids: the small structures of a home."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.intake.job_queue import JobQueue
from services.planner.intake.order import BURST_RECORDS, ClassOrder, Queue, Room
from services.planner.state.timers import Timers
from shared.contracts.base import CLASSES, PriorityClass
from shared.scheduling.class_shares import longest_wait
from tests.unit.planner.desk import Desk, claimed, published, succeeded
from tests.unit.planner.records import Written

JOBS = [f"job{number}" for number in range(5)]
moves = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(JOBS), st.one_of(st.floats(-50, 50), st.just(math.inf), st.just(1e308))),
        st.tuples(st.just("clear"), st.sampled_from(JOBS), st.just(0.0)),
        st.tuples(st.just("pop"), st.just(""), st.floats(0, 60)),
    ),
    max_size=60,
)


@given(moves)
def test_timers_do_what_a_plain_dictionary_does(script: list[tuple[str, str, float]]) -> None:
    """Each job fires once, in the order of due times; never early, at most 10 ms late, never forgotten."""
    timers, naive = Timers(), dict[str, float]()
    for kind, job, value in script:
        if kind == "set":
            timers.set(job, value)
            naive[job] = value
            if value > 1e300:
                del naive[job]
        elif kind == "clear":
            timers.clear(job)
            naive.pop(job, None)
        else:
            fired = timers.pop_due(value)
            assert {job for job, due in naive.items() if due <= value - 0.01 - 1e-9} <= set(fired)
            dues = [max(0.0, naive.pop(job)) for job in fired]
            assert all(due <= value + 1e-9 for due in dues)
            assert all(later > due - 0.01 - 1e-9 for due, later in pairwise(dues))
        assert len(timers) == len(naive)
        soonest = max(0.0, min(naive.values(), default=math.inf))
        assert timers.next_due() == soonest or soonest - 1e-9 <= timers.next_due() <= soonest + 0.01 + 1e-9


def test_a_due_time_before_the_clocks_zero_is_due() -> None:
    """A deadline that passed while the machine was off lies before its monotonic clock began."""
    timers = Timers()
    timers.set("old", -3_600.0)
    assert timers.next_due() == 0.0
    assert timers.pop_due(0.0) == ["old"]


def test_moved_timers_leave_nothing_behind() -> None:
    """Most are moved many times before they are due; memory follows the timers, not the moves."""
    timers = Timers()
    for number in range(10_000):
        timers.set(f"job{number % 10}", 600.0 + number)
    assert len(timers) == 10
    assert len(timers._buckets) < 300
    assert len(timers._order) < 300
    assert sorted(timers.pop_due(1e9)) == [f"job{number}" for number in range(10)]


# Intake


SHARE = 0.9
NO_LIVE = dict.fromkeys(CLASSES, 0)


def queues(**waiting: int) -> dict[PriorityClass, JobQueue]:
    """Queues with so many records each."""
    found = {c: JobQueue(1_000) for c in CLASSES}
    for name, count in waiting.items():
        found[PriorityClass(name)].offer([Written(offset=n) for n in range(count)])
    return found


def taken(
    order: ClassOrder, waiting: dict[PriorityClass, JobQueue], budget: int, room: Room | None = None, now: float = 0.0
) -> list[PriorityClass]:
    return [c for c, _ in order.take(waiting, budget, room or Room(1_000_000, NO_LIVE), now)]


def test_interactive_goes_first_up_to_its_share() -> None:
    """With everything waiting: the burst, then nine of ten are interactive, and of the others four of five standard."""
    got = taken(ClassOrder(SHARE), queues(interactive=1_000, standard=1_000, batch=1_000), 64 + 500)
    assert set(got[:64]) == {PriorityClass.INTERACTIVE}
    rest = Counter(got[64:])
    assert rest[PriorityClass.INTERACTIVE] == pytest.approx(450, abs=10)
    assert rest[PriorityClass.STANDARD] == pytest.approx(40, abs=2)
    assert rest[PriorityClass.BATCH] == pytest.approx(10, abs=2)


def test_a_round_is_bounded_in_bytes() -> None:
    """Soft by one record; what is left comes with the next rounds."""
    waiting = queues()
    waiting[PriorityClass.BATCH].offer([Written(offset=number, value=b"x" * 60_000) for number in range(20)])
    order = ClassOrder(SHARE)
    assert [len(taken(order, waiting, 100)) for _ in range(4)] == [9, 9, 2, 0]


def test_a_class_that_has_waited_long_counts_more() -> None:
    """Batch that was passed over for a minute gets at the next rounds twice what its weight gives it."""
    order, waiting = ClassOrder(SHARE), queues(standard=1_000, batch=1_000)
    fresh = Counter(taken(order, waiting, 100))
    for number in range(100):
        # Standard is served all the time; batch only when it is its turn.
        fresh += Counter(taken(order, waiting, 1, now=60.0 * (number + 1)))
    assert fresh[PriorityClass.BATCH] > 20 + 20


@given(
    st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(1, 40)), max_size=30),
    st.lists(st.integers(-1, 30), min_size=1, max_size=30),
    st.floats(0, 100),
)
def test_no_class_starves_and_the_budget_is_kept(
    arrivals: list[tuple[PriorityClass, int]], budgets: list[int], seconds_a_round: float
) -> None:
    """Whatever arrives when: all of the budget if enough waits, never more; no class that waits is passed over beyond the stated bound."""
    order, waiting = ClassOrder(SHARE), {c: JobQueue(10_000) for c in CLASSES}
    passed = Counter[PriorityClass]()
    feed = iter(arrivals)
    for round_, budget in enumerate(budgets):
        if (arrival := next(feed, None)) is not None:
            queue = waiting[arrival[0]]
            queue.offer([Written(offset=(queue.next_offset or 0) + n) for n in range(arrival[1])])
        held = {c: len(waiting[c]) for c in CLASSES}
        got = taken(order, waiting, budget, now=round_ * seconds_a_round)
        assert len(got) == min(max(budget, 0), sum(held.values()))
        for chosen in got:
            held[chosen] -= 1
            passed[chosen] = 0
            for other in CLASSES:
                if other is not chosen and held[other]:
                    passed[other] += 1
                    assert passed[other] <= longest_wait(other, interactive_share=SHARE, burst=BURST_RECORDS, largest=1.0)


def test_a_class_keeps_the_order_of_its_records() -> None:
    """Within a class, first come, first taken, over rounds."""
    order, waiting = ClassOrder(SHARE), queues(standard=10, batch=10)
    offsets = [
        record.offset for _ in range(10) for c, record in order.take(waiting, 2, Room(100, NO_LIVE), 0.0) if c is PriorityClass.STANDARD
    ]
    assert offsets == list(range(10))


def test_a_queue_skips_what_it_has_seen() -> None:
    """After a rebalance the consumer may bring records again."""
    queue = Queue(3, next_offset=5)
    queue.offer([Written(offset=n) for n in (3, 4, 5, 6)])
    queue.offer([Written(offset=n) for n in (5, 6, 9)])
    assert [record.offset for record in queue.records] == [5, 6, 9]
    assert queue.next_offset == 10


def test_a_queue_says_when_it_is_full() -> None:
    """Full at its bound, to be filled again from half."""
    queue = Queue(4)
    queue.offer([Written(offset=n) for n in range(3)])
    assert not queue.ahead.full
    queue.offer([Written(offset=3)])
    assert queue.ahead.full
    assert not queue.ahead.half_empty  # type: ignore[unreachable]
    queue.take()
    queue.take()
    assert queue.ahead.half_empty


# Settled ids


def settle(desk: Desk, id_: str | None) -> Any:
    """One job, ended; its settle event."""
    desk.submit(id_=id_)
    job, step = desk.job, desk.step
    desk.say(claimed(job, step), succeeded(job, step))
    return job.settled


def test_a_result_counts_what_was_done() -> None:
    """Steps, attempts and usage are the settle event's own."""
    desk = Desk()
    desk.submit()
    [result] = published(desk.say(claimed(desk.job, desk.step), succeeded(desk.job, desk.step)))
    assert (result.steps, result.attempts, result.usage.calls) == (1, 1, 1)
