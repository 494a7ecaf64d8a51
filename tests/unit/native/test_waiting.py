"""Waiting while there is progress: a slow start on a busy machine is no failure, one that hangs is."""

from __future__ import annotations

from itertools import count

from infra.native.waiting import now, seconds_since, wait_while_moving


def test_what_moves_is_waited_for_beyond_the_quiet_time() -> None:
    """Something new every time one looks; it is ready after three times the quiet time."""
    start, looks = now(), count()
    assert wait_while_moving(lambda: seconds_since(start) > 0.6, lambda: next(looks), 0.2)


def test_what_does_not_move_is_given_up_after_the_quiet_time() -> None:
    """And not before."""
    start = now()
    assert not wait_while_moving(lambda: False, lambda: "the same", 0.3)
    assert 0.3 <= seconds_since(start) < 3.0
