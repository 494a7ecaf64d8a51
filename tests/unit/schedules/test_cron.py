"""Cron expressions: which instants they name, also where the clocks change, and that no run is named twice or left out."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidInput
from shared.scheduling.cron import Cron

BERLIN = ZoneInfo("Europe/Berlin")
EXPRESSIONS = ("* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 2,3 * * *", "0 */3 * * *", "15 1 * * SUN", "0 0 1 * *", "*/20 * * * * *")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
DAY = 86_400.0
instants = st.floats(1_700_000_000.0, 1_800_000_000.0)
crons = st.builds(Cron, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES))


def at(text: str) -> float:
    """An instant in Berlin."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=BERLIN)).timestamp()


def named(expression: str, start: str, end: str) -> list[str]:
    """Runs in Berlin, as UTC."""
    found = Cron(expression, "Europe/Berlin").newest(at(start), at(end), 1_000)
    return [datetime.fromtimestamp(instant, UTC).strftime("%d %H:%M") for instant in found]


def test_the_hour_that_is_left_out() -> None:
    """2026-03-29 02:30 does not exist in Berlin: the run begins when the clocks have changed, once."""
    assert named("30 2 * * *", "2026-03-28 12:00", "2026-03-30 12:00") == ["29 01:00", "30 00:30"]
    assert named("0,30 2,3 * * *", "2026-03-29 00:00", "2026-03-29 12:00") == ["29 01:00", "29 01:30"]


def test_the_hour_that_comes_twice() -> None:
    """2026-10-25 02:30 comes twice in Berlin: a fixed hour runs the first time; every half hour goes on by the real time."""
    assert named("30 2 * * *", "2026-10-24 12:00", "2026-10-26 12:00") == ["25 00:30", "26 01:30"]
    assert named("*/30 * * * *", "2026-10-25T01:59:00+02:00", "2026-10-25T03:01:00+01:00") == [
        "25 00:00",
        "25 00:30",
        "25 01:00",
        "25 01:30",
        "25 02:00",
    ]


@pytest.mark.parametrize("text", ["", "* * * *", "61 * * * *", "a b c d e", "0 0 31 2 *", "@daily", "* * * * * * *"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    """With a typed error; an expression that names no day at all as well."""
    with pytest.raises(InvalidInput):
        Cron(text)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "/etc/passwd", "Europe", "a\0b"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    """Nothing outside the data base is opened."""
    with pytest.raises(InvalidInput):
        Cron("* * * * *", zone)


@settings(max_examples=30)
@given(crons, instants)
def test_instants_grow(cron: Cron, start: float) -> None:
    """Each later than the one before and than where the search began."""
    found = list(islice(cron.runs(start), 20))
    assert all(a < b for a, b in zip([start, *found], found, strict=False))


@settings(max_examples=30)
@given(crons, instants, st.integers(0, 19))
def test_where_the_search_begins_does_not_matter(cron: Cron, start: float, cut: int) -> None:
    """From any run on, and from between two, the same runs follow."""
    found = list(islice(cron.runs(start), 21))
    assert list(islice(cron.runs(found[cut]), 20 - cut)) == found[cut + 1 :]
    between = (found[cut] + found[cut + 1]) / 2
    assert cron.next(between) == found[cut + 1]


@settings(max_examples=20)
@given(crons, instants, st.floats(0.0, DAY / 4), st.integers(1, 50))
def test_the_newest_are_the_end_of_all(cron: Cron, start: float, length: float, count: int) -> None:
    """However many are asked for."""
    until = start + min(length, cron.window_seconds)
    every = list(takewhile(lambda run: run <= until, cron.runs(start)))
    assert cron.newest(start, until, count) == every[-count:]


def test_a_bounded_way_back() -> None:
    """A year without a planner costs a week of a search, not a year."""
    assert Cron("* * * * *").newest(0.0, 1_700_000_000.0, 5)[0] > 1_700_000_000.0 - 400
    assert Cron("0 0 1 1 *").newest(0.0, at("2026-06-01 00:00"), 5) == []
