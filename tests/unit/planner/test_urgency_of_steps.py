"""A job whose deadline is near sends its steps in a higher class."""

from __future__ import annotations

from shared.contracts.base import PriorityClass
from tests.unit.planner.desk import Desk, claimed, dispatched, succeeded, two_steps

INTERACTIVE, STANDARD, BATCH = PriorityClass


def slow(desk: Desk, seconds: float) -> None:
    """A standard job that takes so long."""
    desk.submit()
    job, step = desk.job, desk.step
    desk.wait(seconds)
    desk.say(claimed(job, step), succeeded(job, step))


def test_a_step_is_sent_in_the_class_that_its_deadline_needs() -> None:
    """Standard jobs take 10 s: a job with a minute left keeps its class, the same job with 15 s left does not."""
    desk = Desk()
    slow(desk, 10.0)
    [first] = dispatched(desk.submit(**two_steps(deadline_at=desk.wall + 60.0)))
    assert first.priority_class is STANDARD
    desk.wait(45.0)
    job, step = desk.job, desk.step
    [second] = dispatched(desk.say(claimed(job, step), succeeded(job, step)))
    assert second.priority_class is INTERACTIVE
    assert job.accepted.priority_class is STANDARD


def test_without_a_measure_the_class_stands() -> None:
    """The first job of a home, however short its deadline."""
    desk = Desk()
    [step] = dispatched(desk.submit(prompt="q", deadline_at=desk.wall + 0.5))
    assert step.priority_class is STANDARD
