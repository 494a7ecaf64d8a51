"""JobQueue: tenants take turns within the window; nothing is lost, and the position passes nothing that is not taken."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from services.planner.intake.job_queue import HANDFUL, JobQueue
from tests.unit.planner.records import Written


def job(offset: int, tenant: str = "t", max_tokens: int = 10) -> Written:
    body = {"prompt": "q", "tenant": tenant, "options": {"max_tokens": max_tokens}}
    return Written(offset=offset, value=json.dumps(body).encode())


def tenant_of(record: object) -> str:
    return str(json.loads(record.value)["tenant"])  # type: ignore[attr-defined]


def taken(queue: JobQueue) -> list[Written]:
    found = []
    while queue:
        found.append(queue.take())
    return found  # type: ignore[return-value]


def test_a_handful_is_taken_as_it_came() -> None:
    """Without a backlog nothing is looked at: also what is no JSON keeps its place."""
    queue = JobQueue(100)
    queue.offer([Written(offset=n, value=b"not JSON") for n in range(HANDFUL)])
    assert [record.offset for record in taken(queue)] == list(range(HANDFUL))


def test_cancels_wait_for_nobody() -> None:
    """They are taken apart from jobs, whoever is admitted; the position passes none that is not taken."""
    queue = JobQueue(4)
    cancel = Written(offset=1, key=b"x", headers=(("type", b"cancel"),))
    queue.offer([job(0), cancel, job(2)])
    assert queue.holds_cancel
    assert not queue.holds(lambda _: False)
    assert [record.offset for record in taken(queue)] == [0, 2]
    assert queue.position == 1
    assert queue.take_cancel() is cancel
    assert queue.take_cancel() is None
    assert queue.position == 3
    queue.offer([Written(offset=3 + n, key=b"x", headers=(("type", b"cancel"),)) for n in range(4)])
    assert queue.ahead.full, "what waits is bounded"


def test_a_small_tenant_is_not_behind_a_large_one() -> None:
    """One job behind 900 of another tenant is among the first taken."""
    queue = JobQueue(1_000)
    queue.offer([*(job(n, "large") for n in range(900)), job(900, "small")])
    first = [tenant_of(queue.take()) for _ in range(12)]
    assert "small" in first
    assert queue.position in range(1, 12)


def test_tenants_of_very_different_appetite_get_the_same() -> None:
    """Ten tenants, 1:2:...:10 jobs: until the smallest is through all get the same number, to a turn."""
    names = [f"tenant{n}" for n in range(1, 11) for _ in range(n * 10)]
    queue = JobQueue(1_000)
    queue.offer([job(n, name) for n, name in enumerate(names)])
    got = Counter(tenant_of(queue.take()) for _ in range(80))
    assert len(got) == 10
    assert max(got.values()) - min(got.values()) <= 8


def test_what_is_only_sent_on_costs_no_turn() -> None:
    """One tenant's jobs are at home here, of another's one in six: both get the same number run, and none is left out."""
    queue = JobQueue(1_000, at_home=lambda name: name.startswith("here"))
    bodies = [
        json.dumps({"prompt": "q", "tenant": tenant, "id": f"{'there' if tenant == 'b' and n % 6 else 'here'}-{n}"})
        for n in range(400)
        for tenant in "ab"
    ]
    queue.offer([Written(offset=n, value=body.encode()) for n, body in enumerate(bodies)])
    got = Counter[str]()
    for record in islice(iter(queue.take, None), 350):
        assert record.value
        got[tenant_of(record)] += b'"here' in record.value
    assert 0.75 <= got["b"] / got["a"] <= 1.25
    assert len(taken(queue)) == 450


def test_turns_are_of_tokens() -> None:
    """A tenant whose jobs are ten times as long gets a tenth as many."""
    queue = JobQueue(1_000)
    queue.offer([job(n, "long" if n % 2 else "short", 2_000 if n % 2 else 200) for n in range(600)])
    got = Counter(tenant_of(queue.take()) for _ in range(220))
    assert 7 <= got["short"] / got["long"] <= 13


def test_its_reach_bounds_how_far_ahead_is_taken() -> None:
    """However the tenants mix, a record is taken at most `reach` offsets ahead of the first one that is not."""
    queue = JobQueue(50, reach=60)
    offset = 0
    for _ in range(400):
        while not queue.ahead.full:
            queue.offer([job(offset, "large" if offset % 5 else f"small{offset}")])
            offset += 1
        position = queue.position
        assert position is not None
        assert queue.take().offset < position + 60


records = st.one_of(
    st.tuples(st.just("job"), st.sampled_from("abc"), st.integers(-5, 10**9)),
    st.tuples(st.sampled_from(["", "[]", "nothing", '{"tenant": 7}', '{"options": {"max_tokens": true}}']), st.just(""), st.just(0)),
)


@given(st.lists(st.tuples(records, st.integers(1, 3)), max_size=80), st.lists(st.integers(0, 20), min_size=1, max_size=20))
def test_everything_is_taken_once_and_tenants_keep_their_order(
    given_records: list[tuple[tuple[str, str, int], int]], takes: list[int]
) -> None:
    """Whatever the values are and whatever offsets are missing: nothing lost, nothing twice, the position never passes what waits."""
    offset, made = 0, []
    for (kind, tenant, tokens), gap in given_records:
        offset += gap
        made.append(job(offset, tenant, tokens) if kind == "job" else Written(offset=offset, value=kind.encode()))
    queue, feed, got = JobQueue(30), iter(made), list[Written]()
    for count in [*takes, *[len(made)] * 8]:
        queue.offer(list(islice(feed, 25)))
        for _ in range(min(count, len(queue))):
            got.append(queue.take())  # type: ignore[arg-type]
            left = {record.offset for record in made} - {record.offset for record in got}
            assert queue.position is not None
            assert queue.position <= min(left, default=offset + 1)
    got += taken(queue)
    assert sorted(record.offset for record in got) == [record.offset for record in made][: len(got)]
    assert len(got) == len(made)
    for name in "abc":
        mine = [record.offset for record in got if record.value and f'"tenant": "{name}"'.encode() in record.value]
        assert mine == sorted(mine)
    assert queue.position in (None, offset + 1)


def test_what_was_seen_is_skipped() -> None:
    """After a rebalance the consumer may bring records again, also those that were taken ahead of the position."""
    queue = JobQueue(1_000, next_offset=5)
    queue.offer([job(n, "large" if n < 60 else "small") for n in range(3, 65)])
    assert len(queue) == 60
    for _ in range(6):
        queue.take()
    queue.offer([job(n) for n in range(3, 66)])
    assert len(queue) == 55
    assert queue.next_offset == 66
