"""Laws of fairness between classes and tenants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from services.router.fairness import BURST_TOKENS, WaitingSteps
from shared.contracts.base import PriorityClass
from shared.scheduling.class_shares import AGEING_CAP, AGEING_SECONDS, WEIGHTS, weight
from shared.scheduling.fair_queue import TenantRing

INTERACTIVE, STANDARD, BATCH = PriorityClass
QUANTUM = 256


@dataclass(eq=False)
class Item:
    tenant: str = "t"
    cost: int = 64
    lane: str = "any"
    arrived_at: float = 0.0
    priority_class: PriorityClass = STANDARD


def every_lane(_: object) -> bool:
    return True


def ring(items: Iterable[Item]) -> TenantRing[Item]:
    made: TenantRing[Item] = TenantRing(QUANTUM)
    for item in items:
        made.add(item)
    return made


def waiting(items: Iterable[Item], share: float = 0.9) -> WaitingSteps[Item]:
    made: WaitingSteps[Item] = WaitingSteps(interactive_share=share, quantum=QUANTUM)
    for item in items:
        made.add(item)
    return made


costs = st.lists(st.integers(1, 3000), min_size=1, max_size=40)


@given(st.dictionaries(st.sampled_from("abcd"), costs, min_size=1), st.integers(1, 200))
def test_backlogged_tenants_get_equal_tokens(backlogs: dict[str, list[int]], takes: int) -> None:
    """Deficit round robin: while two tenants both wait, their tokens differ by at most a quantum and one largest step each."""
    made = ring(Item(tenant, cost) for tenant, given_costs in backlogs.items() for cost in given_costs)
    left = {tenant: len(given_costs) for tenant, given_costs in backlogs.items()}
    got: Counter[str] = Counter()
    largest = max(cost for given_costs in backlogs.values() for cost in given_costs)
    for _ in range(takes):
        item = made.take(every_lane)
        if item is None:
            break
        got[item.tenant] += item.cost
        left[item.tenant] -= 1
        if 0 in left.values():
            break
        assert max(got[t] for t in left) - min(got[t] for t in left) <= 2 * (QUANTUM + largest)


@given(st.lists(st.builds(Item, st.sampled_from("abc"), st.integers(1, 5000), st.sampled_from("xyz")), max_size=60))
def test_everything_is_served_once_and_in_order_per_lane(items: list[Item]) -> None:
    """Nothing is lost, nothing doubled; steps of one tenant and demand keep their order."""
    made = ring(items)
    served = []
    while (item := made.take(every_lane)) is not None:
        served.append(item)
    assert Counter(map(id, served)) == Counter(map(id, items))
    assert len(made) == 0
    for key in {(item.tenant, item.lane) for item in items}:
        assert [i for i in served if (i.tenant, i.lane) == key] == [i for i in items if (i.tenant, i.lane) == key]


def test_a_small_tenant_is_not_behind_a_large_one() -> None:
    """10,000 steps of one tenant delay another's first step by one turn."""
    made = ring([*(Item("large") for _ in range(10_000)), Item("small")])
    order = [made.take(every_lane) for _ in range(10)]
    assert any(item is not None and item.tenant == "small" for item in order)


@given(st.integers(1, 7), st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 700), min_size=2))
def test_places_that_come_singly_are_shared_alike(places: int, costs: dict[str, int]) -> None:
    """On saturated nodes a few places come free at a time: turns go on where they stopped, they do not begin anew with each place."""
    made = ring(Item(tenant, cost) for tenant, cost in costs.items() for _ in range(200))
    got: Counter[str] = Counter()
    for _ in range(150 // places):
        left = [places]
        while (item := made.take(lambda _, left=left: left[0] > 0)) is not None:  # type: ignore[misc]
            left[0] -= 1
            got[item.tenant] += item.cost
    assert max(got[t] for t in costs) - min(got[t] for t in costs) <= 2 * (QUANTUM + max(costs.values()))


def test_a_closed_lane_holds_nobody() -> None:
    """Steps whose nodes are busy are passed over, also by their own tenant's others, and save nothing up meanwhile."""
    made = ring([*(Item("a", lane="busy") for _ in range(50)), *(Item("a", lane="free") for _ in range(5)), *(Item("b") for _ in range(5))])
    served = []
    while (item := made.take(lambda lane: lane != "busy")) is not None:
        served.append(item.lane)
    assert Counter(served) == {"free": 5, "any": 5}
    assert len(made) == 50


def test_put_back_is_next_of_its_lane() -> None:
    """What could not be sent keeps its place in the order."""
    first, second = Item(), Item()
    made = ring([first, second])
    taken = made.take(every_lane)
    assert taken is first
    made.add(first, front=True)
    assert made.take(every_lane) is first


def test_removal_by_predicate_keeps_the_count() -> None:
    """Removed items are returned, the others stay."""
    made = ring([Item("a", 1), Item("a", 2), Item("b", 2)])
    assert [item.cost for item in made.remove(lambda item: item.cost == 2)] == [2, 2]
    assert len(made) == 1
    assert len(list(made)) == 1


def test_interactive_goes_first() -> None:
    """With a fresh budget interactive steps come before everything that waits."""
    made = waiting([*(Item(priority_class=BATCH) for _ in range(500)), *(Item(priority_class=INTERACTIVE) for _ in range(50))])
    order = [item.priority_class for item in islice(made.drain(every_lane, 0.0), 60)]
    assert order[:50] == [INTERACTIVE] * 50


def test_interactive_is_bounded_by_its_share() -> None:
    """An endless interactive load leaves the rest its share of the tokens, so nothing starves."""
    made = waiting([Item(priority_class=c) for c in (INTERACTIVE, STANDARD) for _ in range(20_000)])
    served = Counter(item.priority_class for item in islice(made.drain(every_lane, 0.0), 12_000))
    rest = served[STANDARD] / (12_000 - 1024)  # after the burst
    assert 0.09 <= rest <= 0.11


def test_standard_and_batch_share_by_weight() -> None:
    """While both wait, and neither is old, tokens are shared 4 to 1."""
    made = waiting([Item(priority_class=c) for c in (STANDARD, BATCH) for _ in range(5_000)])
    served = Counter(item.priority_class for item in islice(made.drain(every_lane, 0.0), 1_000))
    assert served[STANDARD] / served[BATCH] == WEIGHTS[STANDARD] / WEIGHTS[BATCH]


@given(st.floats(0, 10_000), st.floats(0, 10_000))
def test_weight_grows_with_age_within_bounds(age: float, more: float) -> None:
    """Ageing is monotonic and bounded: an old backlog can weigh more, it cannot take everything."""
    for priority_class in WEIGHTS:
        young, old = weight(priority_class, age), weight(priority_class, age + more)
        assert WEIGHTS[priority_class] <= young <= old <= WEIGHTS[priority_class] * AGEING_CAP


def test_ageing_bounds_the_wait_of_batch() -> None:
    """Batch that has waited long gets twice the share or more against standard that has not: the bound is the cap."""
    old = -AGEING_SECONDS[BATCH] * AGEING_CAP
    made = waiting(
        [*(Item(priority_class=STANDARD) for _ in range(5_000)), *(Item(arrived_at=old, priority_class=BATCH) for _ in range(5_000))]
    )
    served = Counter(item.priority_class for item in islice(made.drain(every_lane, 0.0), 1_200))
    assert served[BATCH] / served[STANDARD] == AGEING_CAP * WEIGHTS[BATCH] / WEIGHTS[STANDARD]


def test_a_class_that_could_not_be_served_has_no_claim_on_the_past() -> None:
    """Batch whose nodes were busy for long does not take everything when they are free: shares go on by weight."""
    made = waiting([Item(lane=c.value, priority_class=c) for c in (STANDARD, BATCH) for _ in range(5_000)])
    list(islice(made.drain(lambda lane: lane == STANDARD.value, 0.0), 2_000))
    served = Counter(item.priority_class for item in islice(made.drain(every_lane, 0.0), 500))
    assert served[STANDARD] >= 395


def test_interactive_served_alone_runs_up_no_debt() -> None:
    """Interactive steps that nobody else could use the places of do not count against its share."""
    made = waiting([Item(lane=c.value, priority_class=c) for c in (INTERACTIVE, BATCH) for _ in range(5_000)])
    list(islice(made.drain(lambda lane: lane == INTERACTIVE.value, 0.0), 4_000))
    served = Counter(item.priority_class for item in islice(made.drain(every_lane, 0.0), 100))
    assert served[INTERACTIVE] >= 85


def test_batch_under_a_permanent_interactive_load_gets_a_tenth() -> None:
    """Steps of 100 tokens that arrive faster than nodes serve them: batch waits for the burst at first, then gets one of ten."""
    made = waiting([])
    served: list[PriorityClass] = []
    for _ in range(200):
        for c, count in ((INTERACTIVE, 100), (BATCH, 100)):
            for _ in range(count):
                made.add(Item(cost=100, priority_class=c))
        served += [item.priority_class for item in islice(made.drain(every_lane, 0.0), 50)]
    after_burst = served[int(BURST_TOKENS) // 100 + 1 :]
    assert 0.095 <= Counter(after_burst)[BATCH] / len(after_burst) <= 0.105
    gaps = "".join("b" if c is BATCH else "i" for c in after_burst).split("b")
    assert max(map(len, gaps)) <= 10
