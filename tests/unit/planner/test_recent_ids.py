"""What a planner remembers of ended jobs with client-given ids: all within the window and the bound, wherever they came from."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.planner.engine.settled import Ended, SettledIds
from services.planner.history.recent import SettleEvents, starts
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.event import Event, JobSettled, PlannerStarted, StepClaimedBy
from shared.contracts.result import Result, Status
from shared.kafka.memory_partition import MemoryRecord

STARTED = PlannerStarted(nonce="n", planner="p")


def settled(job: str, epoch: int = 5, *, client_id: bool = True) -> JobSettled:
    result = Result(job=job, status=Status.SUCCEEDED, priority_class=PriorityClass.BATCH, accepted_at=1.0, finished_at=2.0)
    return JobSettled(epoch=epoch, job=job, at=2.0, result=result, client_id=client_id, digest="d")


def feed(events: SettleEvents, first: int, *fed: Event) -> None:
    for number, event in enumerate(fed):
        key = None if isinstance(event, PlannerStarted) else event.job.encode()
        record = MemoryRecord("e", 0, first + number, 7, key, event.to_bytes(), headers.envelope(event.type), 0.0)
        events.feed(record)


def jobs(events: SettleEvents) -> list[str]:
    return [job for job, _, _ in events.newest_first()]


def test_only_the_newest_are_kept_of_a_long_stretch() -> None:
    """Memory does not grow with the jobs of the window, also over take-overs; ids that tutti made are not kept."""
    events = SettleEvents(3)
    feed(events, 100, *(settled(f"a{n}", epoch=7) for n in range(50)))
    feed(events, 900, STARTED, settled("b0", 900), settled("no", 900, client_id=False), settled("b1", 900))
    assert events.newest_first() == [("b1", 903, 7), ("b0", 901, 7), ("a49", 149, 7)]


def test_what_a_fenced_writer_wrote_is_not_remembered() -> None:
    """Before the first start of a stretch the highest epoch is in force; after one, its offset is."""
    events = SettleEvents(10)
    feed(events, 100, settled("zombie", 3), settled("mine", 5), settled("zombie-2", 3))
    feed(events, 200, STARTED, settled("late", 5), settled("next", 200))
    assert jobs(events) == ["next", "mine"]


def test_any_event_tells_the_epoch_in_force() -> None:
    """A fenced writer's end does not count where the owner has only begun something."""
    events = SettleEvents(10)
    claimed = StepClaimedBy(epoch=5, job="j", at=1.0, step="0" * 32, attempt=1, claim="n-1", node="n", mailbox=0, lease_seconds=1.0)
    feed(events, 100, settled("zombie", 3), claimed)
    assert jobs(events) == []


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 20), st.integers(1, 5))
def test_the_index_finds_what_a_dictionary_would(ended: list[int], count: int, block: int) -> None:
    """The newest end of each id; the bound is passed by less than two blocks; the oldest leave first."""
    remembered = SettledIds(count, 1e9, block)
    order: dict[str, int] = {}
    for offset, number in enumerate(ended):
        remembered.add(f"j{number}", offset, float(offset))
        order.pop(f"j{number}", None)
        order[f"j{number}"] = offset
    assert len(remembered) < count + 2 * block
    newest = {f"j{number}": offset for offset, number in list(enumerate(ended))[-count:]}
    assert {job: remembered.find(job, 100.0) for job in newest} == newest
    assert all(remembered.find(job, 100.0) in (None, offset) for job, offset in order.items())
    assert remembered.find("never", 100.0) is None


def test_ids_leave_with_age_and_older_ones_fill_the_room() -> None:
    """Age counts from the end of the job, also for what was read back."""
    remembered = SettledIds(3, 60.0)
    remembered.add("a", 10, 100.0)
    remembered.add_older([("b", Ended(9, 90.0)), ("c", Ended(8, 80.0)), ("d", Ended(7, 70.0))])
    assert [remembered.find(job, 140.0) for job in "abcd"] == [10, 9, 8, None]
    assert [remembered.find(job, 150.1) for job in "abc"] == [10, None, None]
    assert len(remembered) == 3


@given(oldest=st.integers(0, 100_000), length=st.integers(0, 100_000), count=st.integers(1, 500))
def test_reading_goes_further_back_until_all_is_read(oldest: int, length: int, count: int) -> None:
    """Every start lies further back than the one before, by no more than four times; the last one is the oldest."""
    until = oldest + length
    found = list(starts(oldest, until, count))
    assert (found[-1:] == [oldest]) == (length > 0)
    reaches = [until - start for start in found]
    assert all(nearer < further <= 4 * nearer for nearer, further in pairwise(reaches))
    assert not reaches or reaches[0] <= 8 * count
