"""Host lanes: nobody waits for another one's receiver, and nothing grows without bound."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from shared.scheduling.host_lanes import FAILING, HostLanes, LaneBounds

BOUNDS = LaneBounds(sends=6, tenant_sends=4, host_sends=2, held=20, tenant_held=12, host_held=5)


class Sent(NamedTuple):
    host: str
    tenant: str
    number: int


def lies_at(host: str, sent: Sent) -> bool:
    return sent.host == host


def lanes(*sent: Sent) -> HostLanes[Sent]:
    found: HostLanes[Sent] = HostLanes(BOUNDS)
    for each in sent:
        assert found.admit(each)
    return found


def started(found: HostLanes[Sent]) -> list[Sent]:
    begun = []
    while (each := found.next()) is not None:
        begun.append(each)
    return begun


def test_a_slow_host_holds_up_no_other() -> None:
    """Also not one of the same tenant."""
    slow, quick = [Sent("slow", "t", n) for n in range(4)], Sent("quick", "t", 9)
    assert started(lanes(*slow, quick)) == [*slow[:2], quick]


def test_a_tenant_leaves_room_for_others() -> None:
    many = [Sent(f"h{n}", "large", n) for n in range(6)]
    assert started(lanes(*many, Sent("h", "small", 9))) == [*many[:4], Sent("h", "small", 9)]


def test_what_finds_no_room_is_told() -> None:
    found = lanes(*(Sent("h", "t", n) for n in range(5)))
    assert not found.admit(Sent("h", "u", 9))
    assert found.admit(Sent("other", "u", 9))


def test_a_host_that_fails_is_tried_by_one() -> None:
    found: HostLanes[Sent] = HostLanes(BOUNDS)
    for number in range(FAILING):
        found.admit(Sent("bad", "t", number))
        found.done(started(found)[0], good=False)
    assert found.admit(Sent("bad", "t", 7))
    assert not found.admit(Sent("bad", "t", 8))
    found.done(started(found)[0], good=True)
    assert found.admit(Sent("bad", "t", 8))
    assert found.admit(Sent("bad", "t", 9))


def test_what_waits_too_long_is_taken_out() -> None:
    found = lanes(Sent("a", "t", 1), Sent("b", "t", 2))
    assert found.take_out(lambda each: each.number == 1) == [Sent("a", "t", 1)]
    assert started(found) == [Sent("b", "t", 2)]
    assert len(found) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("tu"), st.sampled_from(["admit", "next", "good", "bad", "out"]))))
def test_bounds_hold_whatever_comes(course: list[tuple[str, str, str]]) -> None:
    found: HostLanes[Sent] = HostLanes(BOUNDS)
    waiting: list[Sent] = []
    sends: list[Sent] = []
    for number, (host, tenant, what) in enumerate(course):
        if what == "admit" and found.admit(each := Sent(host, tenant, number)):
            waiting.append(each)
        elif what == "next" and (begun := found.next()) is not None:
            waiting.remove(begun)
            sends.append(begun)
        elif what == "out":
            gone = found.take_out(partial(lies_at, host))
            assert gone == [each for each in waiting if each.host == host]
            waiting = [each for each in waiting if each.host != host]
        elif what in ("good", "bad") and sends:
            found.done(sends.pop(), good=what == "good")
        assert len(found) == len(waiting) + len(sends)
        assert len(sends) <= BOUNDS.sends
        assert all(sum(each.host == h for each in sends) <= BOUNDS.host_sends for h in "abc")
        assert all(sum(each.tenant == t for each in sends) <= BOUNDS.tenant_sends for t in "tu")
        assert all(sum(each.host == h for each in waiting + sends) <= BOUNDS.host_held for h in "abc")
