"""The register: whoever waits is counted, bounded, told when its time is up or the instance leaves, and cut off when it does not go."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.problems import InstanceLeaving, Refused
from services.ingress.replies.register import Following, Places, Register, WaitKind
from services.ingress.replies.waiters import Caller
from services.ingress.settings import IngressSettings
from shared.errors import Overloaded
from shared.scheduling.fair_queue import TIMES_LEFT
from tests.support.ingress_world import inline


def register(**changes: float) -> Register:
    given_: dict[str, float] = {"in_flight": 100, "follows": 100, "stuck_seconds": 30.0, "retry_after_seconds": 2.0, **changes}
    return Register(IngressSettings(**given_))  # type: ignore[arg-type]


def guest(kind: WaitKind, until: float = 1e9, tenant: str = "t") -> Caller | Following:
    return Caller("j", 0, until, inline, tenant=tenant) if kind is WaitKind.ANSWER else Following(kind, tenant, until)


@pytest.mark.parametrize("kind", WaitKind)
async def test_each_kind_is_bounded(kind: WaitKind) -> None:
    """429 with when to come again; who leaves makes room; leaving twice makes room once."""
    book = register(in_flight=2, follows=2)
    first, second, third = (guest(kind) for _ in range(3))
    book.enter(first)
    book.enter(second)
    with pytest.raises(Overloaded) as refused:
        book.enter(third)
    assert refused.value.retry_after_seconds == 2.0
    book.leave(first)
    book.leave(first)
    book.enter(third)
    with pytest.raises(Overloaded):
        book.check(kind)
    assert (len(book), book.count(kind)) == (2, 2)


async def test_callers_and_those_who_wait_for_an_end_share_places() -> None:
    """Event streams have their own."""
    book = register(in_flight=1, follows=1)
    book.enter(guest(WaitKind.END))
    with pytest.raises(Overloaded):
        book.enter(guest(WaitKind.ANSWER))
    book.enter(guest(WaitKind.EVENTS))


@pytest.mark.parametrize("kind", WaitKind)
async def test_one_tenant_leaves_places_to_others(kind: WaitKind) -> None:
    """However many it asks for: the next tenant still finds some."""
    book = register(in_flight=170, follows=170)
    for _ in range(160):
        book.enter(guest(kind, tenant="greedy"))
    with pytest.raises(Overloaded):
        book.enter(guest(kind, tenant="greedy"))
    for _ in range(5):
        book.enter(guest(kind, tenant="other"))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.booleans()), max_size=200))
def test_places_are_never_more_than_there_are(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever is taken and given back; and nobody who holds nothing is refused while a place per share is left."""
    places, held = Places(100), dict.fromkeys("abc", 0)
    for tenant, number, back in steps:
        if back:
            places.give_back(tenant, held[tenant])
            held[tenant] = 0
        elif places.has(tenant, number):
            places.take(tenant, number)
            held[tenant] += number
        else:
            left = 100 - sum(held.values())
            assert number > left or held[tenant] + number > max(1, TIMES_LEFT * left)
        assert places.taken == sum(held.values()) <= 100


@pytest.mark.parametrize("kind", WaitKind)
async def test_whose_time_is_up_is_told_and_then_cut_off(kind: WaitKind) -> None:
    """Told at its deadline; cut off when it is still here, since its client reads nothing."""
    book = register()

    async def wait() -> None:
        found = guest(kind, until=5.0)
        book.enter(found)
        entered.set_result(found)
        await asyncio.Event().wait()

    entered: asyncio.Future[Caller | Following] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(wait())
    found = await entered
    book.sweep(4.9)
    assert not told(found)
    book.sweep(5.0)
    assert told(found)
    assert not task.cancelling()
    book.sweep(35.0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_that_takes_nothing_is_cut_off_before_its_deadline() -> None:
    """What was sent has not been taken for as long as is allowed."""
    book = register(stuck_seconds=30.0)
    blocked: asyncio.Future[Following] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        reader = Following(WaitKind.EVENTS, "t", 1e9)
        reader.blocked_since = 100.0
        book.enter(reader)
        blocked.set_result(reader)
        await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await blocked
    book.sweep(129.0)
    assert not task.cancelling()
    book.sweep(130.0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_each_is_told_that_the_instance_leaves() -> None:
    """Of the kinds that are named."""
    book = register()
    guests = {kind: guest(kind) for kind in WaitKind}
    for found in guests.values():
        book.enter(found)
    book.dismiss(WaitKind.END, WaitKind.EVENTS)
    assert [told(found) for found in guests.values()] == [False, True, True]
    book.dismiss(*WaitKind)
    caller = guests[WaitKind.ANSWER]
    assert isinstance(caller, Caller)
    assert isinstance(caller.error, InstanceLeaving)


async def test_an_overdue_caller_has_a_deadline_for_an_answer() -> None:
    """504."""
    caller = Caller("j", 0, 5.0, inline)
    caller.expire()
    assert isinstance(caller.error, Refused)
    assert caller.error.problem.status == 504


def told(found: Caller | Following) -> bool:
    return found.ended if isinstance(found, Caller) else found.over and found.news.is_set()
