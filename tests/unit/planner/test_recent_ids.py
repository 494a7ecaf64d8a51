"""What a planner remembers of ended jobs with client-given ids is bounded, however many there were and however large."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.planner.engine.settled import SettledIds
from services.planner.history.recent import SettleEvents, starts
from shared.contracts.base import PriorityClass
from shared.contracts.chat import Answer
from shared.contracts.event import JobSettled, PlannerStarted
from shared.contracts.result import Result, Status


def ended(job: str, epoch: int = 5, text: str = "") -> JobSettled:
    """The settle event of a job with a client-given id."""
    result = Result(
        job=job, status=Status.SUCCEEDED, answer=Answer(text=text), priority_class=PriorityClass.BATCH, accepted_at=1.0, finished_at=2.0
    )
    return JobSettled(epoch=epoch, job=job, at=2.0, result=result, client_id=True, digest="d")


def feed(events: SettleEvents, *settled: JobSettled) -> None:
    for number, event in enumerate(settled):
        events.feed(100 + number, event, event.to_bytes())


def test_only_the_newest_are_kept_of_a_long_stretch() -> None:
    """Memory does not grow with the jobs of the window, also over take-overs."""
    events = SettleEvents(3)
    feed(events, *(ended(f"a{n}", epoch=7) for n in range(50)))
    events.feed(900, PlannerStarted(nonce="n", planner="p", version="1"), b"")
    feed(events, *(ended(f"b{n}", epoch=900) for n in range(2)))
    assert [one.job for one in events.valid()] == ["a49", "b0", "b1"]


def test_what_a_fenced_writer_wrote_is_not_remembered() -> None:
    """Before the first start of a stretch the highest epoch is in force; after one, its offset is."""
    events = SettleEvents(10)
    feed(events, ended("zombie", epoch=3), ended("mine", epoch=5), ended("zombie-2", epoch=3))
    events.feed(200, PlannerStarted(nonce="n", planner="p", version="1"), b"")
    feed(events, ended("late", epoch=5), ended("next", epoch=200))
    assert [one.job for one in events.valid()] == ["mine", "next"]


def test_large_results_leave_before_small_ones_would() -> None:
    """The bytes of remembered results are bounded; the oldest leave first; what is found is the event itself."""
    remembered = SettledIds(100, 60.0, 10_000)
    for name in ("a", "b", "c"):
        remembered.add(ended(name, text=name * 4_000), 0.0)
    assert remembered.find("a", 0.0) is None
    assert remembered.find("c", 0.0) == ended("c", text="c" * 4_000)
    assert not remembered.add_older("older", b"x" * 4_000, 0.0)
    assert remembered.add_older("small", ended("small").to_bytes(), 0.0)
    remembered.add(ended("b"), 0.0)
    assert remembered.add_older("older", b"x" * 4_000, 0.0), "a smaller result for the same id makes room"


@given(oldest=st.integers(0, 100_000), length=st.integers(0, 100_000), count=st.integers(1, 500))
def test_reading_goes_further_back_until_all_is_read(oldest: int, length: int, count: int) -> None:
    """Every start lies further back than the one before, by no more than four times; the last one is the oldest."""
    until = oldest + length
    found = list(starts(oldest, until, count))
    assert (found[-1:] == [oldest]) == (length > 0)
    reaches = [until - start for start in found]
    assert all(nearer < further <= 4 * nearer for nearer, further in pairwise(reaches))
    assert not reaches or reaches[0] <= 8 * count
