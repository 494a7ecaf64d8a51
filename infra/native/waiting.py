"""Polling for a condition of the outside world, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.clock import SystemClock

MOST_SECONDS = 600.0
"""Nothing that still moves is waited for longer."""

_clock = SystemClock()


def wait_until(condition: Callable[[], bool], timeout_seconds: float, *, every_seconds: float = 0.1) -> bool:
    """True as soon as `condition()` is; False when `timeout_seconds` have passed. Always asks at least once."""
    deadline = _clock.monotonic() + timeout_seconds
    while not condition():
        if _clock.monotonic() >= deadline:
            return False
        time.sleep(every_seconds)
    return True


def wait_while_moving(condition: Callable[[], bool], progress: Callable[[], object], quiet_seconds: float) -> bool:
    """True as soon as `condition()` is; False when what `progress()` tells has not changed for `quiet_seconds`, or after MOST_SECONDS.

    A slow start on a busy machine is no failure as long as something happens.
    """
    started = moved_at = _clock.monotonic()
    seen = progress()
    while not condition():
        now_at, now_seen = _clock.monotonic(), progress()
        if now_seen != seen:
            seen, moved_at = now_seen, now_at
        if now_at - moved_at >= quiet_seconds or now_at - started >= MOST_SECONDS:
            return False
        time.sleep(0.1)
    return True


def seconds_since(start: float) -> float:
    """Seconds since `now()` returned `start`."""
    return _clock.monotonic() - start


def now() -> float:
    """Seconds since an arbitrary start."""
    return _clock.monotonic()
