"""Room: no class fills a home, and no tenant a class; whoever has little to do finds room."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.planner.intake.job_queue import JobQueue
from services.planner.intake.order import ClassOrder, Room
from shared.contracts.base import CLASSES, PriorityClass
from shared.scheduling.fair_queue import TIMES_LEFT
from tests.unit.planner.records import Written

SHARE = 0.9
NO_LIVE = dict.fromkeys(CLASSES, 0)
BATCH = PriorityClass.BATCH


def queues(**waiting: int) -> dict[PriorityClass, JobQueue]:
    """Queues with so many records each."""
    found = {c: JobQueue(1_000) for c in CLASSES}
    for name, number in waiting.items():
        found[PriorityClass(name)].offer([Written(offset=n) for n in range(number)])
    return found


def taken(waiting: dict[PriorityClass, JobQueue], room: Room) -> list[PriorityClass]:
    return [c for c, _ in ClassOrder(SHARE).take(waiting, 100, room, 0.0)]


@given(
    st.integers(1, 200),
    st.fixed_dictionaries({c: st.integers(0, 250) for c in CLASSES}),
    st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(1, 9)), max_size=300),
)
def test_no_class_fills_the_home(bound: int, live: dict[PriorityClass, int], wanted: list[tuple[PriorityClass, int]]) -> None:
    """Never more places than the bound (than there were, above it), but for the rest of the last job; a class below its eighth has room."""
    room, now_live = Room(bound, live), dict(live)
    own = sum(max(live[c], bound // 8) for c in CLASSES)
    for c, places in wanted:
        assert room.has(c) or now_live[c] >= bound // 8
        if room.has(c):
            assert now_live[c] < bound // 8 or sum(max(n, bound // 8) for n in now_live.values()) < max(bound, own)
            room.take(c, places)
            now_live[c] += places


def test_room_is_given_back_to_whoever_needs_it() -> None:
    """Batch alone may hold all but the others' reserves; interactive then still has its own, and gets what batch gives back."""
    room = Room(80, NO_LIVE)
    while room.has(PriorityClass.BATCH):
        room.take(PriorityClass.BATCH)
    full = NO_LIVE | {PriorityClass.BATCH: 60}
    room = Room(80, full)
    assert not room.has(PriorityClass.BATCH)
    waiting = queues(interactive=100, batch=100)
    assert Counter(taken(waiting, room)) == {PriorityClass.INTERACTIVE: 10}
    after = Room(80, full | {PriorityClass.BATCH: 55, PriorityClass.INTERACTIVE: 10})
    assert Counter(taken(waiting, after)) == {PriorityClass.INTERACTIVE: 5}


# Tenants


class Intake:
    """A home that takes jobs of one class; its live jobs end when told."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.held: Counter[tuple[PriorityClass, str]] = Counter()
        self.queue, self.order = JobQueue(1_000), ClassOrder(SHARE)
        self._offsets = count()

    def offer(self, tenant: str, jobs: int) -> None:
        self.queue.offer([Written(offset=next(self._offsets), value=json.dumps({"tenant": tenant}).encode()) for _ in range(jobs)])

    def room(self) -> Room:
        return Room(self.bound, NO_LIVE | {BATCH: self.held.total()}, self.held)

    def take(self, budget: int = 1_000) -> list[str]:
        """One round's jobs, by tenant, entered as they are taken."""
        got = []
        for _, record in self.order.take({c: self.queue if c is BATCH else JobQueue(1) for c in CLASSES}, budget, self.room(), 0.0):
            got.append(str(json.loads(record.value or b"")["tenant"]))
            self.held[BATCH, got[-1]] += 1
        return got

    def end(self, tenant: str, jobs: int = 1) -> None:
        self.held[BATCH, tenant] -= jobs
        self.held += Counter()

    def of(self, tenant: str) -> int:
        return self.held[BATCH, tenant]


def test_a_tenant_alone_may_have_nearly_all() -> None:
    """Sixteen seventeenths of the 300 that its class may have."""
    it = Intake(400)
    it.offer("large", 900)
    it.take()
    assert 282 <= it.of("large") <= 283
    assert not it.queue.holds(it.room().admits(BATCH)), "nothing to wake up for"


def test_a_new_tenant_finds_room_at_once() -> None:
    """No job has to end for it, however much the other one holds and wants."""
    it = Intake(400)
    it.offer("large", 900)
    it.take()
    it.offer("small", 10)
    assert it.queue.holds(it.room().admits(BATCH))
    assert it.take() == ["small"] * 10


def test_what_comes_free_goes_to_who_holds_little() -> None:
    """Until both hold about the same; from then on both get their turns."""
    it = Intake(400)
    it.offer("large", 900)
    it.take()
    it.offer("small", 900)
    it.take()
    for _ in range(100):
        it.end("large")
        assert "large" not in it.take()
    assert it.of("small") > 100
    random = Random(7)
    for _ in range(1_000):
        it.end(random.choices(["large", "small"], [it.of("large"), it.of("small")])[0])
        it.take()
    assert abs(it.of("large") - it.of("small")) <= 15


def test_a_small_home_is_shared_too() -> None:
    """One place is left for others, and then what comes free."""
    it = Intake(40)
    it.offer("large", 100)
    it.take()
    assert it.of("large") == 29
    it.offer("small", 5)
    assert it.take() == ["small"]
    it.end("large", 2)
    assert it.take() == ["small", "small"]


def test_records_of_no_tenant_are_not_held_back() -> None:
    """Cancels, and what is no job: they are read in their turn, whoever fills the home."""
    it = Intake(400)
    it.offer("large", 400)
    it.take()
    it.queue.offer([Written(offset=400), Written(offset=401, value=b"nonsense")])
    queues_ = {c: it.queue if c is BATCH else JobQueue(1) for c in CLASSES}
    assert [record.offset for _, record in it.order.take(queues_, 10, it.room(), 0.0)] == [400, 401]


steps = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 60), st.integers(0, 60), st.sampled_from("abcd")), max_size=25)


@given(st.integers(1, 300), steps)
def test_no_tenant_fills_a_class(bound: int, drawn: list[tuple[str, int, int, str]]) -> None:
    """Whatever comes and ends in whatever order: the bounds are kept, nothing is left lying that could be taken, and who holds nothing
    is passed over only where no room is left.
    """
    it = Intake(bound)
    waiting: Counter[str] = Counter()
    for tenant, arrive, end, whose in drawn:
        if not it.queue.ahead.full:
            it.offer(tenant, arrive)
            waiting[tenant] += arrive
        it.end(whose, min(end, it.of(whose)))
        before = it.held.copy()
        for name in it.take():
            waiting[name] -= 1
        left = bound - 2 * (bound // 8) - it.held.total()
        assert left >= 0
        for name in "abcd":
            if it.of(name) > before[BATCH, name]:
                assert it.of(name) <= TIMES_LEFT * (left + it.held.total() - before.total())
            if waiting[name] and it.of(name) < TIMES_LEFT * left:
                raise AssertionError(f"{name} waits with {left} places left and {it.of(name)} held")
        assert not it.queue.holds(it.room().admits(BATCH)) or left == 0
