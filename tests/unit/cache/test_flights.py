"""Of equal steps one asks a model, and the others wait; in memory, bounded."""

from __future__ import annotations

from services.cache.flights import Flights
from shared.contracts.base import PriorityClass
from shared.contracts.cache import CacheLookup

KEY, OTHER = "a" * 64, "b" * 64


def lookup(step: str, *, key: str = KEY, tenant: str = "red", priority_class: PriorityClass = PriorityClass.STANDARD) -> CacheLookup:
    return CacheLookup(key=key, tenant=tenant, job=f"j-{step}", step=step, attempt=1, home=0, priority_class=priority_class)


def flights(most: int = 100) -> Flights:
    return Flights(seconds=10.0, most=most)


def end(there: Flights, step: str, now: float = 0.0) -> str | None:
    following = there.abandoned(KEY, "red", (f"j-{step}", step), now)
    return None if following is None else following.step


def test_the_first_leads_and_the_others_wait_for_as_long_as_it_is_believed() -> None:
    there = flights()
    assert there.missed(lookup("a"), 0.0) is None
    assert there.missed(lookup("b"), 4.0) == 6.0
    assert there.missed(lookup("a"), 5.0) is None
    assert [one.step for one in there.landed(KEY)] == ["b"]
    assert (len(there), there.waiting) == (0, 0)


def test_who_asks_when_the_leaders_time_is_over_leads() -> None:
    there = flights()
    there.missed(lookup("a"), 0.0)
    there.missed(lookup("b"), 1.0)
    there.missed(lookup("c"), 1.0)
    assert there.missed(lookup("b"), 10.0) is None
    assert there.missed(lookup("c"), 10.0) == 10.0
    assert [one.step for one in there.landed(KEY)] == ["c"]


def test_a_leader_that_ends_without_an_answer_is_followed_by_the_highest_class() -> None:
    there = flights()
    for step, of in (
        ("a", PriorityClass.INTERACTIVE),
        ("b", PriorityClass.BATCH),
        ("c", PriorityClass.STANDARD),
        ("d", PriorityClass.BATCH),
    ):
        there.missed(lookup(step, priority_class=of), 0.0)
    assert end(there, "a") == "c"
    assert end(there, "d") is None
    assert end(there, "c") == "b"
    assert end(there, "b") is None
    assert (len(there), there.waiting) == (0, 0)


def test_a_higher_class_does_not_wait_for_a_lower_one() -> None:
    there = flights()
    there.missed(lookup("a", priority_class=PriorityClass.BATCH), 0.0)
    there.missed(lookup("b", priority_class=PriorityClass.BATCH), 0.0)
    assert there.missed(lookup("c", priority_class=PriorityClass.INTERACTIVE), 1.0) is None
    assert end(there, "a") is None
    assert [one.step for one in there.landed(KEY)] == ["b"]


def test_nobody_waits_for_another_tenant_but_an_answer_is_all_of_theirs() -> None:
    """The key of a scope that tenants share is one."""
    there = flights()
    for tenant in ("red", "green"):
        assert there.missed(lookup(f"{tenant}1", tenant=tenant), 0.0) is None
        assert there.missed(lookup(f"{tenant}2", tenant=tenant), 0.0) == 10.0
    assert [one.step for one in there.landed(KEY)] == ["green2", "red2"]


def test_bounds() -> None:
    """Steps that are waited for, and steps that wait; what is beyond is sent."""
    there = flights(most=2)
    for step, key in (("a", KEY), ("b", OTHER), ("c", "c" * 64)):
        assert there.missed(lookup(step, key=key), 0.0) is None
    assert len(there) == 2
    assert there.missed(lookup("d", key=OTHER), 0.0) == 10.0
    assert there.missed(lookup("e", key=OTHER), 0.0) == 10.0
    assert there.missed(lookup("f", key=OTHER), 0.0) is None
    assert there.waiting == 2
    there.missed(lookup("g", key="d" * 64), 0.0)
    there.missed(lookup("h", key="e" * 64), 0.0)
    assert there.waiting == 0
    assert there.landed(OTHER) == []
