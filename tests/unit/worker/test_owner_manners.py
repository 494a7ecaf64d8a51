"""The policy by which a node yields to its machine's owner, on facts alone; and how the machine's words are read (recorded output)."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.worker.owner import machine, manners
from services.worker.owner.machine import Times
from services.worker.owner.manners import (
    MEMORY_IS_SHORT,
    NOT_ITS_HOURS,
    OTHERS_COMPUTE,
    OWNER_IS_THERE,
    OwnerFacts,
    OwnerSettings,
    SleepSettings,
    Standing,
    judged,
    may_sleep,
)

AT = datetime(2026, 3, 4, 12, 0, tzinfo=UTC).timestamp()
"""A Wednesday."""


def over_time(settings: OwnerSettings, *looks: tuple[float, OwnerFacts]) -> list[str]:
    """The reason after each look; times in seconds."""
    standing, found = Standing(), []
    for now, facts in looks:
        standing = judged(standing, facts, settings, now, AT + now)
        found.append(standing.reason)
    return found


def test_nothing_that_is_not_asked_for_makes_a_node_yield() -> None:
    """By default a worker is its machine's, whatever happens there; nor do facts that the machine does not tell."""
    hectic = OwnerFacts(input_seconds=0.0, others_load=1.0, memory_stall=100.0, memory_free=0.0)
    assert over_time(OwnerSettings(), (0, hectic), (1000, hectic)) == ["", ""]
    assert not OwnerSettings().wanted
    strict = OwnerSettings(away_seconds=300, others_load=0.1, memory_stall=1, least_free=0.9)
    assert over_time(strict, (0, OwnerFacts()), (1000, OwnerFacts())) == ["", ""]


def test_an_owner_who_is_there_has_his_machine_at_once_and_until_he_is_away() -> None:
    """No patience for him: the time after which he is away is the hysteresis."""
    settings = OwnerSettings(away_seconds=300)
    looks = [(0.0, OwnerFacts(inf)), (5.0, OwnerFacts(1.0)), (10.0, OwnerFacts(299.0)), (15.0, OwnerFacts(300.0))]
    assert over_time(settings, *looks) == ["", OWNER_IS_THERE, OWNER_IS_THERE, ""]


def test_load_must_last_before_it_counts_and_be_well_over_before_it_does_not() -> None:
    """A burst is nothing; nor is a lull, nor a load just below what began it."""
    settings = OwnerSettings(others_load=0.5, hold_seconds=10, calm_seconds=60)
    loads = [(0, 0.9), (5, 0.1), (10, 0.9), (15, 0.9), (20, 0.9), (30, 0.1), (60, 0.45), (70, 0.3), (120, 0.3), (130, 0.3)]
    found = over_time(settings, *((at, OwnerFacts(others_load=load)) for at, load in loads))
    assert found == ["", "", "", "", *[OTHERS_COMPUTE] * 5, ""]


def test_memory_that_the_node_itself_has_given_back_does_not_bring_it_back() -> None:
    """Its models were half of the memory: what is free without them would not be free with them. When others have left, it comes back."""
    settings = OwnerSettings(least_free=0.1, hold_seconds=0, calm_seconds=60)
    full, unloaded, others_gone = OwnerFacts(memory_free=0.05, memory_ours=0.5), OwnerFacts(memory_free=0.55), OwnerFacts(memory_free=0.9)
    looks = [(0, full), (10, unloaded), (100, unloaded), (200, others_gone), (261, others_gone)]
    assert over_time(settings, *looks) == [*[MEMORY_IS_SHORT] * 4, ""]


def test_stalls_are_memory_that_is_short() -> None:
    """By the kernel's own word."""
    settings = OwnerSettings(memory_stall=20, hold_seconds=10)
    assert over_time(settings, (0, OwnerFacts(memory_stall=30)), (10, OwnerFacts(memory_stall=30))) == ["", MEMORY_IS_SHORT]


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 1)), max_size=60))
def test_pressure_never_turns_faster_than_its_patience(steps: list[tuple[float, float]]) -> None:
    """Whatever the load does: between beginning and end of a yield lies the calm time at least, before a beginning the time to hold."""
    settings = OwnerSettings(others_load=0.5, hold_seconds=10, calm_seconds=60)
    standing, now, turned_at = Standing(), 0.0, -inf
    for passed, load in steps:
        now += passed
        before = standing
        standing = judged(before, OwnerFacts(others_load=load), settings, now, AT)
        if standing.reason != before.reason:
            assert now - turned_at >= (10 if standing.reason else 60)
            turned_at = now


def hours(settings: OwnerSettings, *moment: int) -> str:
    wall = datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]
    return judged(Standing(), OwnerFacts(), settings, 0.0, wall).reason


def test_a_node_has_hours_in_its_own_time_zone() -> None:
    """Nights of working days, and all weekend, in Berlin; its last second belongs to the owner; `must_not` wins."""
    settings = OwnerSettings(
        may_work="0 22 * * 1-5 for 9h; 0 0 * * 6,0 for 1d", must_not="0 3 * * * for 30m", time_zone="Europe/Berlin"
    )  # in March one hour ahead
    assert [hours(settings, 2026, 3, 4, h, m) for h, m in ((20, 59), (21, 0), (5, 59), (6, 0))] == [NOT_ITS_HOURS, "", "", NOT_ITS_HOURS]
    assert hours(settings, 2026, 3, 7, 12, 0) == ""
    assert [hours(settings, 2026, 3, 7, 2, m) for m in (0, 29, 30)] == [NOT_ITS_HOURS, NOT_ITS_HOURS, ""]
    assert hours(settings, 2026, 3, 28, 23, 30) == "", "the clocks change in this night"


@pytest.mark.parametrize(
    "odd",
    [
        *("22-7", "0 22 * * *", "0 22 * * * for 9", "0 22 * * * for 0h", "0 22 * * * for 8d", "x 22 * * * for 1h", "for 1h"),
        ";".join(["0 1 * * * for 1h"] * 51),
    ],
)
def test_hours_that_are_none_are_refused_at_the_start(odd: str) -> None:
    """Not in the middle of the night."""
    with pytest.raises(ValidationError):
        OwnerSettings(may_work=odd)
    with pytest.raises(ValidationError):
        OwnerSettings(time_zone=f"Mars/{odd[:8]}")


def test_a_machine_sleeps_only_when_nobody_needs_it() -> None:
    """Neither this node, nor somebody at the keyboard, nor a program that computes; while the node yields the machine is its owner's."""
    settings, quiet = SleepSettings(command=("suspend",), after_seconds=600), OwnerFacts(input_seconds=inf, others_load=0.05)
    assert may_sleep(Standing(), quiet, settings, 600)
    assert not may_sleep(Standing(NOT_ITS_HOURS), quiet, settings, 600), "its record would say that it yields, and nobody would wake it"
    assert may_sleep(Standing(), OwnerFacts(), settings, 600)
    assert not may_sleep(Standing(), quiet, settings, 599)
    assert not may_sleep(Standing(), quiet, SleepSettings(after_seconds=1), 600), "off without a command"
    assert not may_sleep(Standing(), OwnerFacts(input_seconds=599), settings, 600)
    assert not may_sleep(Standing(), OwnerFacts(others_load=0.3), settings, 600)
    assert not may_sleep(Standing(OTHERS_COMPUTE, OTHERS_COMPUTE), quiet, settings, 600)


# What machines say


def test_logind_tells_since_when_nobody_has_touched_anything() -> None:
    """systemd 252, recorded; nobody logged in since the start is for ever."""
    at = 1_700_000_000.0
    assert machine.logind_idle("IdleHint=yes\nIdleSinceHint=1699999400000000\n", at) == 600.0
    assert machine.logind_idle("IdleHint=yes\nIdleSinceHint=0\n", at) == inf
    assert machine.logind_idle("IdleHint=no\nIdleSinceHint=1699999400000000\n", at) == 0.0
    assert machine.logind_idle("", at) is None
    assert machine.logind_idle("IdleHint=yes\nIdleSinceHint=soon\n", at) is None


def test_macos_tells_nanoseconds() -> None:
    """A part of `ioreg -c IOHIDSystem -d 4`, as its manual and forums show it; not run on a Mac."""
    shown = '    | |   "HIDParameters" = {"HIDClickTime"=500000000}\n    | |   "HIDIdleTime" = 4512345678\n'
    assert machine.hid_idle(shown) == pytest.approx(4.512345678)
    assert machine.hid_idle("") is None


def test_the_kernel_tells_how_long_memory_was_waited_for() -> None:
    """/proc/pressure/memory of Linux 6.1."""
    shown = "some avg10=12.34 avg60=3.00 avg300=0.50 total=123\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=45\n"
    assert machine.memory_stall(shown) == 12.34
    assert machine.memory_stall("") is None


def test_what_others_compute_is_what_is_left() -> None:
    """Of all processors' time; a program that ended took its times along, and no time is no share."""
    assert machine.others_load(Times(100, 40, 1000), Times(150, 60, 1100)) == pytest.approx(0.3)
    assert machine.others_load(Times(100, 40, 1000), Times(110, 30, 1100)) == pytest.approx(0.1)
    assert machine.others_load(Times(100, 40, 1000), Times(110, 90, 1100)) == 0.0
    assert machine.others_load(Times(100, 40, 1000), Times(100, 40, 1000)) is None


def test_this_machine_is_read() -> None:
    """Whatever it tells is within bounds; the load needs two looks."""
    here, all_of_it = machine.Machine(), OwnerSettings(away_seconds=1, others_load=0.5, memory_stall=1, least_free=0.1)
    first, second = (here.look(all_of_it, AT, in_use=False) for _ in range(2))
    assert first.others_load is None
    assert 0 < (second.memory_free or 0) <= 1
    assert 0 < second.memory_ours < 1
    for share in (second.others_load, (second.memory_stall or 0.0) / 100):
        assert share is None or 0 <= share <= 1
    assert here.look(OwnerSettings(), AT, in_use=False) == OwnerFacts()


@pytest.mark.parametrize(
    ("given_", "read"),
    [("AA-BB-CC-00-11-22", "aa:bb:cc:00:11:22"), ("aa:bb:cc:00:11:22", "aa:bb:cc:00:11:22"), ("00:00:00:00:00:00", None), ("", None)],
)
def test_an_address_of_an_interface_has_one_spelling(given_: str, read: str | None) -> None:
    """Loopback has none that anybody could wake."""
    assert machine.spelled(given_) == read
    assert machine.mac_towards("127.0.0.1:9092") is None
    assert machine.mac_towards("nowhere") is None


def test_a_command_is_run_without_a_shell() -> None:
    """Its words are its words; what is no program is told."""
    assert machine.put_to_sleep(["true", "; false"]) == 0
    assert machine.put_to_sleep(["false"]) == 1
    assert machine.put_to_sleep(["no such program && true"]) == -1
    assert manners.RESTING_LOAD < 1
