"""Early: what a JobQueue keeps of a backlog behind its window. Every tenant is met, order within one holds, nothing is lost."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from services.planner.intake.early import MUCH
from services.planner.intake.job_queue import JobQueue
from services.planner.state.taken import Offsets
from tests.unit.planner.records import Written

Log = list[Written]


def job(offset: int, tenant: str, size: int = 0, *, ours: bool = True) -> Written:
    """`ours`: as tutti writes it, so that a glance tells the tenant."""
    body = {"tenant": tenant, "prompt": "q" * size}
    return Written(offset=offset, value=json.dumps(body, separators=(",", ":") if ours else (", ", ": ")).encode())


def log(*tenants: str) -> Log:
    return [job(offset, tenant) for offset, tenant in enumerate(tenants)]


def tenant_of(record: object) -> str:
    return str(json.loads(record.value)["tenant"])  # type: ignore[attr-defined]


def fill(queue: JobQueue, records: Log) -> None:
    """The reader in order: until the queue is full."""
    for record in records[queue.next_offset or 0 :]:
        if queue.ahead.full:
            return
        queue.offer([record])


def look(queue: JobQueue, records: Log, most: int = 1_000_000, portion: int = 100, cancels: int = 500) -> int:
    """The second reader, until it need not go on; returns how many records it read."""
    read = 0
    while read < most and (start := queue.looks_from) is not None and start < len(records):
        found = records[start : start + portion]
        queue.look_ahead(start, found, start + len(found), cancels=cancels)
        read += len(found)
    return read


def test_nothing_is_looked_for_without_a_backlog() -> None:
    """Also not again, once little waits."""
    queue, records, found = JobQueue(40, 0), log(*["a"] * 60), list[int | None]()
    for offered, taken in ((39, 0), (1, 0), (0, 30)):
        queue.offer(records[queue.next_offset or 0 :][:offered])
        for _ in range(taken):
            queue.take()
        found.append(queue.looks_from)
    assert found == [None, 40, None]


def test_one_job_behind_any_number_of_another_tenants_is_taken_next() -> None:
    queue, records = JobQueue(100, 0), [*log(*["large"] * 20_000), job(20_000, "small")]
    fill(queue, records)
    assert look(queue, records) == 19_901
    assert "small" in [tenant_of(queue.take()) for _ in range(12)]
    assert queue.position is not None
    assert queue.position < 12


def test_a_large_tenant_alone_costs_a_glance_a_record_once() -> None:
    """While the window moves on nothing is read again; nothing of it is kept behind the window."""
    queue, records, read = JobQueue(100, 0), log(*["large"] * 5_000), 0
    for _ in range(4_800):
        fill(queue, records)
        read += look(queue, records)
        queue.take()
        assert queue.looks_from is None or queue.looks_from >= 4_900 or read == 0
    assert read == 4_900


def test_the_body_decides_whose_job_it_is() -> None:
    """A job that says another tenant first than it means is that of whom it means."""
    sly = Written(offset=500, value=b'{"tenant":"small","prompt":"q","tenant":"large"}')
    queue, records = JobQueue(100, 0), [*log(*["large"] * 500), sly, job(501, "small", ours=False)]
    fill(queue, records)
    look(queue, records)
    assert [record.offset for record in (queue.take() for _ in range(10)) if record is not None and record.offset > 100] == [501]


def test_what_is_kept_of_a_tenant_is_bounded_by_its_bytes() -> None:
    """Of large jobs a few: nobody else's are kept out by them."""
    many = [job(200 + n, f"t{n % 4}", 60_000) for n in range(400)]
    queue, records = JobQueue(100, 0), [*log(*["large"] * 200), *many]
    fill(queue, records)
    look(queue, records)
    kept = Counter(tenant_of(record) for record in (queue.take() for _ in range(300)) if record is not None)
    assert {kept[f"t{n}"] for n in range(4)} <= {1, 2, 3}


def test_cancels_are_found_as_far_as_they_may() -> None:
    """Those beyond come in their order; none is given twice."""
    cancels = [Written(offset=200 + n, key=b"x", headers=(("type", b"cancel"),)) for n in range(5)]
    queue, records = JobQueue(100, 0), [*log(*["large"] * 200), *cancels]
    fill(queue, records)
    look(queue, records, cancels=3)
    assert queue.holds_cancel
    first = [queue.take_cancel() for _ in range(2)]
    assert first == cancels[:2]
    got = []
    while queue.position != len(records):
        fill(queue, records)
        queue.take()
        while queue.holds_cancel:
            got.append(queue.take_cancel())
    assert got == cancels[2:]


def test_it_looks_no_farther_than_its_reach_and_goes_on_with_the_position() -> None:
    queue, records = JobQueue(10, 0, reach=160), log(*["large"] * 1_000)
    fill(queue, records)
    look(queue, records)
    assert queue.looks_from is None
    for taken in range(1, 40):
        queue.take()
        fill(queue, records)
        if taken < 10:
            assert queue.looks_from is None
    assert look(queue, records, portion=5) <= 45
    assert queue.done_since(0).end <= 160 + 40


def test_what_another_reader_brings_late_is_passed_over() -> None:
    """The way of a book that was given up, or of before the reader went back."""
    queue, records = JobQueue(10, 0), log(*["large"] * 30, "small")
    fill(queue, records)
    assert queue.looks_from == 10
    assert not queue.look_ahead(20, records[20:], 31, cancels=0)
    assert queue.look_ahead(10, records[10:], 31, cancels=0)
    assert not queue.look_ahead(10, records[10:], 31, cancels=0)


tenants = st.lists(st.tuples(st.sampled_from("aaaaaaaabbbcd"), st.integers(1, 40)), min_size=1, max_size=40)


@settings(max_examples=60)
@given(tenants, st.integers(4, 60), st.integers(0, 2**32))
def test_everything_is_taken_once_in_its_tenants_order(drawn: list[tuple[str, int]], bound: int, seed: int) -> None:
    """Whatever the mix and however the readers get on: nothing lost, nothing twice; what is done with is told exactly."""
    names = [name for name, count in drawn for _ in range(count)]
    queue, records, got, random = JobQueue(bound, 0, reach=16 * bound), log(*names), list[int](), Random(seed)
    while len(got) < len(records):
        fill(queue, records)
        look(queue, records, random.randrange(3) * 50, random.choice((1, 7, 50)))
        for _ in range(random.randrange(1, 2 * bound)):
            record = queue.take()
            if record is None:
                break
            got.append(record.offset)
            if record.offset % 16 == 0:
                done, base = queue.done_since(queue.position or 0), queue.position or 0
                assert {n for n in range(len(records)) if n in done} == {*got, *range(base)}
        assert len(queue) <= bound + 1
    assert sorted(got) == list(range(len(records)))
    for name in "abcd":
        mine = [offset for offset in got if names[offset] == name]
        assert mine == sorted(mine)
    fill(queue, records)
    assert queue.position == len(records)


@given(st.integers(0, 50), st.integers(0, 2**60))
def test_what_is_done_with_already_is_not_taken_again(begin: int, bits: int) -> None:
    """After a take-over: the reader in order passes over it, and so does the second."""
    queue = JobQueue(20, begin, done=Offsets(begin, bits))
    records, got = log(*["large", "small"] * 60), []
    while queue.position is None or queue.position < len(records):
        fill(queue, records)
        look(queue, records)
        record = queue.take()
        if record is not None:
            got.append(record.offset)
    assert sorted(got) == [offset for offset in range(begin, len(records)) if offset not in Offsets(begin, bits)]


def test_many_tenants_find_room() -> None:
    """Forty tenants behind the window, one after the other, each with many: what the first of them have room for is soon less."""
    queue = JobQueue(200, 0)
    records = log(*["large"] * 400, *(f"t{n}" for n in range(40) for _ in range(2 * MUCH)))
    fill(queue, records)
    got = Counter[str]()
    for _ in range(400):
        look(queue, records)
        got[tenant_of(queue.take())] += 1
        fill(queue, records)
    assert min(got[f"t{n}"] for n in range(40)) >= 3
