"""Unmet: whoever cancels a job that nobody knows is told, once its time is over."""

from __future__ import annotations

from math import inf

from services.planner.intake.canonical import SECONDS, Unmet
from shared.contracts.base import PriorityClass
from tests.unit.planner.records import Written

STANDARD = PriorityClass.STANDARD


def test_only_those_whose_job_has_not_come_are_told() -> None:
    """Also when their guess was pushed out by newer ones; nothing is passed by the position before."""
    unmet = Unmet()
    assert unmet.next_due == inf
    for offset, job in enumerate(("met", "unknown", "later")):
        unmet.add(Written(offset=5 + offset), STANDARD, job, 100.0 + offset)
    assert unmet.clamp({"jobs.standard": 9, "outcomes": 4}) == {"jobs.standard": 5, "outcomes": 4}
    assert unmet.next_due == 100.0 + SECONDS
    told = unmet.over(101.5 + SECONDS, lambda job, _: job == "met", lambda _: 0)
    assert [(one.job, one.record.offset) for one in told] == [("unknown", 6)]
    assert unmet.clamp({"jobs.standard": 9}) == {"jobs.standard": 7}
    assert unmet.clamp({}) == {"jobs.standard": 7}
