"""What a book remembers of the steps that it has sent: what waits for routers is told, the rest is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.outcome import StepUnplaced
from tests.unit.planner.desk import claimed, opened, routed, succeeded


@pytest.mark.parametrize("tell", [routed, claimed, succeeded])
def test_a_step_waits_until_it_lies_in_a_mailbox_or_is_taken(tell: Any) -> None:
    """By whatever is told of it first."""
    desk = opened()
    assert desk.book.unclaimed.waits("chat")
    assert not desk.book.unclaimed.waits("embed")
    desk.say(tell(desk.job, desk.step))
    assert not desk.book.unclaimed.waits("chat")


def test_a_step_that_no_node_can_run_is_in_nobodys_way() -> None:
    """Until a router says that there is such a node again."""
    desk = opened()
    of: dict[str, Any] = {"job": desk.job.id, "step": desk.step.id, "attempt": 1}
    desk.say(StepUnplaced(**of, missing=("model x",)))
    assert not desk.book.unclaimed.waits("chat")
    desk.say(StepUnplaced(**of, missing=()))
    assert desk.book.unclaimed.waits("chat")


def test_steps_that_are_over_are_forgotten() -> None:
    """Also behind one that waits for ever, and where nobody asks."""
    desk = opened()
    for _ in range(2_000):
        desk.submit()
        desk.say(succeeded(desk.job, desk.step))
    assert len(desk.book.unclaimed) < 1_000
    assert desk.book.unclaimed.waits("chat")
